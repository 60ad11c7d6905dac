// A ranking as elements. Texts become text nodes only, never markup.

// {rank, index, score, scored, title, id, text, reason, passages, truncated, ...} of the server's results and the documents sent.
export function hitsOf(results, documents) {
  return results.map((result, position) => {
    const sent = documents[result.index];
    const record = sent !== null && typeof sent === "object" ? sent : {};
    return {
      rank: position + 1,
      index: result.index,
      score: result.relevance_score,
      scored: result.scored !== false,
      id: shown(record.id ?? record._id ?? record.docid),
      title: shown(record.title),
      text: result.document?.text ?? "",
      reason: result.reason,
      passages: result.passages ?? [],
      truncated: result.truncated,
      tokens_used: result.tokens_used,
      tokens_total: result.tokens_total,
    };
  });
}

// The list item of a hit. `scale` has the scores of an empty and a full bar.
export function hitElement(hit, scale) {
  const bar = element("i");
  bar.style.width = `${100 * clamp((hit.score - scale.low) / (scale.high - scale.low || 1))}%`;
  const score = hit.scored
    ? element("div", "score", element("span", "bar", bar), element("span", "number", number(hit.score, scale.raw)))
    : element("div", "score", element("span", "hint", "not read"), element("span", "number", "–"));
  if (hit.scored) score.firstChild.ariaHidden = "true";
  score.title = hit.scored ? `score ${hit.score}` : "no model read this document: it has no score";
  const text = element("p", "text short");
  const foot = element("div", "foot");
  const body = element("div", "", score, hit.title ? element("p", "title", hit.title) : "", text, reason(hit), foot);
  fillText(text, hit, true);
  if (hit.id) foot.append(element("span", "id", hit.id));
  if (hit.truncated) foot.append(element("span", "cut", cutWords(hit)));
  const item = element("li", "hit", element("div", "place", element("span", "rank", String(hit.rank)), move(hit)), body);
  item.addTextToggle = () => addToggle(text, foot, hit);
  return item;
}

// Gives hits on the page a button that shows the whole text where a part of it is hidden, and takes it from the others.
export function fitToggles(items) {
  const clipped = [...items].map((item) => {
    const text = item.querySelector(".text");
    return !text.classList.contains("short") || text.dataset.excerpt || text.scrollHeight > text.clientHeight + 1;
  });
  [...items].forEach((item, index) => {
    const button = item.querySelector(".foot button");
    if (clipped[index] && !button) item.addTextToggle();
    if (!clipped[index]) button?.remove();
  });
}

export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== ""));
  return made;
}

export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function move({ rank, index }) {
  const by = index + 1 - rank;
  const symbol = by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "–";
  const made = element("span", `move ${by > 0 ? "up" : by < 0 ? "down" : ""}`);
  const mark = element("span", "", symbol);
  mark.ariaHidden = "true";
  const words = by > 0 ? `up ${by}, ` : by < 0 ? `down ${-by}, ` : "not moved, ";
  made.append(mark, element("span", "unseen", `${words}number ${index + 1} in the given order`));
  made.title = `number ${index + 1} in the given order`;
  return made;
}

function reason(hit) {
  return hit.reason ? element("blockquote", "reason", hit.reason) : "";
}

function cutWords(hit) {
  if (!hit.tokens_total) return "cut to the model’s length";
  return `cut: ${hit.tokens_used.toLocaleString("en")} of ${hit.tokens_total.toLocaleString("en")} tokens were read`;
}

// The text with the passages that were read marked. In short form a document with one begins there.
function fillText(paragraph, hit, short) {
  const letters = Array.from(hit.text); // the server counts code points
  const spans = hit.passages.filter(([from, to]) => to - from < letters.length).sort((a, b) => a[0] - b[0]);
  const parts = [];
  let at = 0;
  if (short && spans.length && spans[0][0] > 0) {
    at = spans[0][0];
    parts.push("… ");
    paragraph.dataset.excerpt = "true";
  }
  for (const [from, to] of spans) {
    parts.push(letters.slice(at, from).join(""), element("mark", "", letters.slice(Math.max(at, from), to).join("")));
    at = Math.max(at, to);
  }
  parts.push(letters.slice(at).join("") || (spans.length ? "" : element("span", "none", "no text")));
  paragraph.replaceChildren(...parts);
}

function addToggle(text, foot, hit) {
  const button = element("button", "plain", "Show all");
  button.type = "button";
  button.ariaExpanded = "false";
  button.setAttribute("aria-label", `Show all of document ${hit.rank}`);
  button.addEventListener("click", () => {
    const short = !text.classList.contains("short");
    text.classList.toggle("short", short);
    fillText(text, hit, short);
    button.textContent = short ? "Show all" : "Show less";
    button.setAttribute("aria-label", `${button.textContent} of document ${hit.rank}`);
    button.ariaExpanded = String(!short);
  });
  foot.prepend(button);
}

function number(score, raw) {
  if (raw) return score.toFixed(2);
  return score > 0 && score < 0.0005 ? "<0.001" : score.toFixed(3);
}

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

function shown(value) {
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}
