// The documents in what a user pastes or drops. Knows nothing of the page or the server.

// dearlite/fields.py: the names of the field that holds a document's text. The server reads records by the same table.
export const TEXT_FIELDS = ["text", "contents", "passage", "content", "body", "segment", "page_content", "passage_text",
  "document_text", "doc_text", "chunk_text", "chunk", "document", "doc"];
const DELIMITERS = [",", ";", "\t", "|"];
const BY_ENDING = { jsonl: "jsonl", ndjson: "jsonl", json: "jsonl", csv: "csv", tsv: "csv" };
const LARGEST = 16 * 1024 * 1024;

// {documents, query?, note}: the documents as the server gets them, and a few words on their format.
// Throws Error, in words, for what cannot be read.
export function readDocuments(text, format = "auto") {
  text = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  if (!text.trim()) return { documents: [], note: "" };
  switch (format === "auto" ? formatOf(text) : format) {
    case "jsonl": return readJson(text);
    case "csv": return readCsv(text);
    case "paragraphs": return { documents: blocks(text, /\n[ \t]*\n/), note: "one a paragraph" };
    default: return { documents: blocks(text, /\n/), note: "one a line" };
  }
}

// {text, format} of files: of one, what is in it; of several texts, a record for each.
export async function readFiles(files) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  if (total > LARGEST) throw new Error("The files are larger than 16 MB: rank them with dearlite rerank instead.");
  const formats = files.map((file) => BY_ENDING[ending(file.name)] ?? "auto");
  const texts = await Promise.all(files.map(decoded));
  if (files.length === 1) return { text: texts[0], format: formats[0] };
  if (formats.every((format) => format === "auto")) {
    const records = texts.map((text, index) => JSON.stringify({ id: files[index].name, text: text.trim() }));
    return { text: records.join("\n"), format: "jsonl" };
  }
  if (formats.every((format) => format === "jsonl")) {
    const records = texts.flatMap((text) => readJson(text).documents);
    return { text: records.map((record) => JSON.stringify(record)).join("\n"), format: "jsonl" };
  }
  throw new Error("Drop one CSV file at a time, or several texts or JSON files.");
}

function formatOf(text) {
  const start = text.trim();
  if (start[0] === "{") return "jsonl";
  if (start[0] === "[" || start[0] === '"') {
    try {
      readJson(text);
      return "jsonl";
    } catch { /* a text that begins with a bracket or a quotation mark */ }
  }
  const header = start.slice(0, (start + "\n").indexOf("\n"));
  const cells = rowsOf(header, delimiterOf(header))[0];
  if (cells.length > 1 && textColumn(cells) >= 0 && start.includes("\n")) return "csv";
  return /\S[ \t]*\n[ \t]*\n\s*\S/.test(text) ? "paragraphs" : "lines";
}

function blocks(text, separator) {
  return text.split(separator).map((block) => block.trim()).filter(Boolean);
}

function readJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return { documents: readJsonLines(text), note: "JSON Lines" };
  }
  if (Array.isArray(value)) return { documents: value, note: "JSON" };
  const inner = value?.documents ?? value?.texts ?? value?.passages ?? value?.candidates;
  if (!Array.isArray(inner)) return { documents: [value], note: "JSON Lines" };
  return { documents: inner, query: typeof value.query === "string" ? value.query : undefined, note: "JSON" };
}

function readJsonLines(text) {
  const documents = [];
  text.split("\n").forEach((line, index) => {
    if (!line.trim()) return;
    try {
      documents.push(JSON.parse(line));
    } catch {
      throw new Error(`Line ${index + 1} is not JSON: “${line.trim().slice(0, 40)}”`);
    }
  });
  return documents;
}

// A record for each row, by the names in the first; a single column without a known name has no header.
function readCsv(text) {
  const rows = rowsOf(text, delimiterOf(text.slice(0, (text + "\n").indexOf("\n"))));
  const [header, ...rest] = rows;
  if (header.length === 1) {
    const values = textColumn(header) < 0 ? rows : rest;
    return { documents: values.map((row) => row.join("")).filter(Boolean), note: "CSV" };
  }
  const wide = rest.findIndex((row) => row.length > header.length);
  if (wide >= 0) throw new Error(`Row ${wide + 2} of the CSV has ${rest[wide].length} cells, the first row has ${header.length}.`);
  const names = header.map((name) => name.trim());
  const known = textColumn(names) >= 0;
  const column = known ? textColumn(names) : longestColumn(rest, names.length);
  const documents = rest.map((row) => {
    const record = Object.fromEntries(names.map((name, index) => [name, row[index] ?? ""]));
    return known ? record : { ...record, text: row[column] ?? "" };
  });
  return { documents, note: `CSV, text in “${names[column]}”` };
}

function textColumn(names) {
  const plain = names.map((name) => name.trim().toLowerCase());
  return plain.indexOf(TEXT_FIELDS.find((name) => plain.includes(name)));
}

function longestColumn(rows, count) {
  const lengths = Array.from({ length: count }, (_, column) =>
    rows.reduce((sum, row) => sum + (row[column] ?? "").length, 0));
  return lengths.indexOf(Math.max(...lengths));
}

function delimiterOf(header) {
  const counts = DELIMITERS.map((delimiter) => header.split(delimiter).length);
  return DELIMITERS[counts.indexOf(Math.max(...counts))];
}

// The rows of a CSV, RFC 4180: cells in quotation marks may hold delimiters, line breaks and doubled quotation marks.
function rowsOf(text, delimiter) {
  const rows = [[]];
  let cell = "", quoted = false, closed = false;
  const end = () => {
    rows.at(-1).push(cell);
    cell = "";
    closed = false;
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') cell += text[++at];
      else [quoted, closed] = [false, true];
    } else if (character === '"' && !cell && !closed) quoted = true;
    else if (character === delimiter) end();
    else if (character === "\n") {
      end();
      rows.push([]);
    } else cell += character;
  }
  if (quoted) throw new Error("A quotation mark of the CSV is not closed.");
  end();
  return rows.filter((row) => row.some((value) => value.trim()));
}

function ending(name) {
  return name.toLowerCase().split(".").at(-1);
}

// The text of a file: UTF-8, or UTF-16 with its mark. Other bytes are refused, not replaced.
async function decoded(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const mark = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  try {
    const text = new TextDecoder(mark, { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch { /* named below */ }
  throw new Error(`The file ${file.name} is no text in UTF-8: save it as text, JSON Lines or CSV.`);
}
