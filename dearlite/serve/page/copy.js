// A request or a ranking as text for the clipboard.

const KEY = "DEARLITE_KEY";

// The ranking as JSON, one record a hit.
export function asJson(hits) {
  return JSON.stringify(hits.map(({ rank, index, score, scored, id, text, reason }) => ({ rank, index, score: scored ? score : null, id: id || null, text, reason })), null, 2);
}

// The request as a curl command of a POSIX shell.
export function asCurl(url, body, withKey) {
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $${KEY}"` : "";
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl ${url} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'\n`;
}

// The request as Python that needs no package.
export function asPython(url, body, withKey) {
  const key = withKey ? `, "Authorization": "Bearer " + os.environ["${KEY}"]` : "";
  return `import json
${withKey ? "import os\n" : ""}import urllib.request

body = ${literal(body)}
request = urllib.request.Request(
    "${url}", json.dumps(body).encode(), {"Content-Type": "application/json"${key}}
)
with urllib.request.urlopen(request) as response:
    results = json.load(response)["results"]
for hit in results:
    print(f"{hit['relevance_score']:.3f}", hit["document"]["text"])
`;
}

// A JSON value as a Python literal. Strings are written alike in both.
function literal(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return items.length ? `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}` : open + close;
}

// Writes to the clipboard; an address that is neither https nor loopback has only the old way.
export async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("The browser does not let this page copy.");
}
