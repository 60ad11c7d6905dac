// The page: reads the form, sends it, and shows the answer.

import { get, Problem, rerank } from "./ask.js";
import { asCurl, asJson, asPython, toClipboard } from "./copy.js";
import { EXAMPLE } from "./example.js";
import { readDocuments, readFiles } from "./read.js";
import { fitToggles, count, element, hitElement, hitsOf } from "./show.js";

const STEP = 50; // hits that are shown at once
const $ = (id) => document.getElementById(id);
const state = { models: [], limit: Infinity, input: 0, read: { documents: [], note: "" }, hits: [], shown: 0, scale: null, sent: null, running: null };

async function loadModels() {
  try {
    const { security } = await get("openapi.json");
    const needed = security.every((scheme) => "key" in scheme);
    $("metrics").hidden = needed; // a link sends no key
    if (needed && !key()) return askForKey();
    const [models, info] = await Promise.all([get("v1/models", key()), get("info", key())]);
    Object.assign(state, { models: models.data, limit: info.max_client_batch_size, input: info.max_input_length });
    $("key-field").hidden = !key();
  } catch (error) {
    showProblem(error);
    return;
  }
  showOnly(state.hits.length ? "ranked" : "empty");
  $("model").replaceChildren(...state.models.map(({ id }) => new Option(id, id)));
  $("model-field").hidden = state.models.length < 2;
  showModel();
}

function askForKey() {
  $("key-field").hidden = false;
  $("stopped").textContent = "This server needs a key.";
  showOnly("stopped", state.hits.length ? "ranked" : "empty");
  $("key").focus();
}

// The facts of the chosen model, and the options that it has.
function showModel() {
  const model = state.models.find(({ id }) => id === $("model").value);
  const first = model === state.models[0];
  const reads = first && state.input ? ` · ${state.input.toLocaleString("en")} tokens with query` : "";
  $("serving").textContent = model ? `${model.id} · ${[...new Set(model.kinds)].join(", then ")}${reads}` : "";
  const kinds = new Set(model?.kinds);
  if (model?.kinds.length > 1) kinds.add("cascade");
  for (const field of document.querySelectorAll("[data-kind]")) {
    field.hidden = field.disabled = !kinds.has(field.dataset.kind);
    if (field.selected && field.hidden) field.selected = false;
  }
}

function showCount() {
  let words = "", bad = false;
  try {
    state.read = readDocuments($("documents").value, $("format").value);
    const { documents, note } = state.read;
    words = documents.length ? `${count(documents.length, "document")} · ${note}` : "";
    bad = documents.length > state.limit;
    if (bad) words += ` · the server takes ${state.limit.toLocaleString("en")}`;
  } catch (error) {
    state.read = { error };
    [words, bad] = [error.message, true];
  }
  $("count").textContent = words;
  $("count").classList.toggle("bad", bad);
}

// The body of the request in the form. Throws Problem for what is missing, with the field to go to.
function bodyOfForm() {
  showCount();
  if (state.read.error) throw missing(state.read.error.message, "documents");
  if (state.read.query && !$("query").value.trim()) $("query").value = state.read.query;
  if (!$("query").value.trim()) throw missing("Write a query first.", "query");
  if (!state.read.documents.length) throw missing("Paste or drop documents first.", "documents");
  const body = { query: $("query").value.trim(), documents: state.read.documents };
  if (state.models.length > 1) body.model = $("model").value;
  for (const [id, name] of [["top", "top_n"], ["budget", "budget_ms"], ["passes", "passes"]]) {
    const field = $(id);
    if (!field.disabled && !field.checkValidity()) throw missing(`${labelOf(id)} must be a whole number above 0.`, id);
    if (!field.disabled && field.value) body[name] = Number(field.value);
  }
  for (const id of ["long", "mode"]) if (!$(id).disabled && $(id).value) body[id] = $(id).value;
  if ($("raw").value) body.raw_scores = true;
  return body;
}

function missing(message, field) {
  return Object.assign(new Problem(message), { field });
}

function labelOf(id) {
  return document.querySelector(`label[for=${id}]`).textContent;
}

async function run() {
  if (state.running) return;
  let body;
  try {
    body = bodyOfForm();
  } catch (error) {
    showProblem(error);
    if ($("options").contains($(error.field))) $("options").open = true;
    $(error.field)?.focus();
    return;
  }
  const stopper = (state.running = new AbortController());
  const on = { progress: showProgress, text: ({ text }) => addThought(text) };
  begin(body.documents.length);
  try {
    const answer = await rerank(body, { key: key(), signal: stopper.signal, on });
    showAnswer(answer, body);
  } catch (error) {
    if (error.name === "AbortError") {
      $("stopped").textContent = state.hits.length ? "Stopped. The ranking below is the one before." : "Stopped.";
      showOnly("stopped", state.hits.length ? "ranked" : "empty");
      say("Stopped.");
    } else showProblem(error);
  } finally {
    state.running = null;
    $("go").disabled = false;
    $("stop").hidden = true;
  }
}

function begin(total) {
  $("go").disabled = true;
  $("stop").hidden = false;
  $("thoughts").textContent = "";
  $("thinking").hidden = true;
  $("progress").removeAttribute("value");
  $("doing").textContent = `Reading ${count(total, "document")}`;
  $("done").textContent = "";
  showOnly("running", state.hits.length ? "ranked" : "");
  $("ranked").classList.add("old");
  say(`Reading ${count(total, "document")}.`);
}

function showProgress({ done, total }) {
  $("progress").max = total;
  $("progress").value = done;
  $("done").textContent = `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
}

function addThought(text) {
  $("thinking").hidden = false;
  $("thinking").open = true;
  $("thoughts").append(text);
  $("thoughts").scrollTop = $("thoughts").scrollHeight;
}

function showAnswer(answer, body) {
  const { dearlite: facts, warnings } = answer.meta;
  state.hits = hitsOf(answer.results, body.documents);
  state.sent = body;
  const scores = state.hits.filter(({ scored }) => scored).map(({ score }) => score);
  state.scale = body.raw_scores
    ? { low: Math.min(0, ...scores), high: Math.max(0, ...scores), raw: true }
    : { low: 0, high: 1, raw: false };
  const unread = state.hits.length - scores.length;
  const moved = state.hits.filter(({ rank, index }) => rank !== index + 1).length;
  $("facts").textContent = [
    count(body.documents.length, "document"), `${moved.toLocaleString("en")} moved`, timeWords(facts.elapsed_ms),
    ...(unread ? [`${scores.length.toLocaleString("en")} of ${state.hits.length.toLocaleString("en")} read`] : []),
    ...(body.raw_scores ? [`bars from ${state.scale.low.toFixed(2)} to ${state.scale.high.toFixed(2)}`] : []),
    `${answer.model} on ${facts.device}`,
  ].join(" · ");
  $("warnings").replaceChildren(...warnings.map((warning) => element("li", "", sentence(warning))));
  $("warnings").hidden = !warnings.length;
  const reasoning = (facts.reasoning ?? []).join("\n\n");
  if (reasoning) $("thoughts").textContent = reasoning;
  $("thinking").hidden = !reasoning;
  $("thinking").open = false;
  $("hits").replaceChildren();
  state.shown = 0;
  $("ranked").classList.remove("old");
  showOnly("ranked");
  showMore();
  say(`${count(state.hits.length, "document")} ranked. ${warnings.map(sentence).join(" ")}`);
  $("answer").focus({ preventScroll: true });
  if ($("answer").getBoundingClientRect().top > innerHeight / 2) $("answer").scrollIntoView();
}

function showMore() {
  const next = state.hits.slice(state.shown, state.shown + STEP);
  const items = next.map((hit) => hitElement(hit, state.scale));
  $("hits").append(...items);
  fitToggles(items);
  state.shown += next.length;
  const left = state.hits.length - state.shown;
  $("more").hidden = !left;
  $("more").textContent = `Show ${Math.min(STEP, left)} more of ${left.toLocaleString("en")}`;
}

function showProblem(error) {
  const locked = key() ? "The server does not know this key." : "This server needs a key.";
  $("problem").textContent = error.status === 401 ? locked : sentence(error.message);
  $("ranked").classList.add("old");
  showOnly("problem", state.hits.length ? (error.status ? "" : "ranked") : "empty");
  if (error.status === 401) {
    $("key-field").hidden = false;
    $("key").focus();
  }
}

function showOnly(...names) {
  for (const name of ["empty", "running", "stopped", "problem", "ranked"]) $(name).hidden = !names.includes(name);
  $("answer-title").hidden = !names.includes("running") && !names.includes("ranked");
}

async function copy(button) {
  const url = new URL("v1/rerank", location.href).href;
  const made = {
    json: () => asJson(state.hits),
    curl: () => asCurl(url, state.sent, Boolean(key())),
    python: () => asPython(url, state.sent, Boolean(key())),
  }[button.dataset.copy]();
  try {
    await toClipboard(made);
  } catch {
    showProblem(new Problem("The browser does not let this page copy."));
    return;
  }
  const label = button.dataset.label ??= button.textContent;
  button.textContent = "Copied";
  say("Copied.");
  setTimeout(() => { button.textContent = label; }, 1500);
}

async function takeFiles(files) {
  if (!files.length) return;
  try {
    const { text, format } = await readFiles([...files]);
    $("documents").value = text;
    $("format").value = format;
  } catch (error) {
    showProblem(error);
    return;
  }
  showCount();
}

function showExample() {
  $("query").value = EXAMPLE.query;
  $("documents").value = EXAMPLE.documents.join("\n");
  $("format").value = "auto";
  run();
}

function key() {
  return $("key").value.trim();
}

function say(words) {
  $("status").textContent = words;
}

function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?…:]”?$/.test(words) ? "" : ".");
}

function timeWords(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

let waiting, resized;
$("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("stop").addEventListener("click", () => state.running?.abort());
$("example").addEventListener("click", showExample);
$("more").addEventListener("click", showMore);
$("model").addEventListener("change", showModel);
$("key").addEventListener("change", loadModels);
$("format").addEventListener("change", showCount);
$("documents").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(showCount, 150); });
$("open").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", async () => { await takeFiles($("files").files); $("files").value = ""; });
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  if (event.key === "Escape") state.running?.abort();
});
addEventListener("dragover", (event) => { if (hasFiles(event)) { event.preventDefault(); $("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  takeFiles(event.dataTransfer.files);
});
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => fitToggles($("hits").children), 150); });
if (/Mac|iPhone|iPad/.test(navigator.userAgent)) $("shortcut").textContent = "⌘ ↵";
showCount();
loadModels();
