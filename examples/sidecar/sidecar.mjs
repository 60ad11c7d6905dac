// dearlite as a part of an Electron app (its main process) or of any Node program.
// Try it: node examples/sidecar/sidecar.mjs
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// Starts the server. It ends when this program ends, since its standard input closes then.
export function startSidecar(command = process.env.DEARLITE ?? "dearlite", args = []) {
  const child = spawn(command, ["serve", "--stdio", "--quiet", ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const waiting = new Map();
  let last = 0, ended = null;
  // Rejects the requests that wait, and all later ones, with the first reason.
  const end = (error) => {
    ended ??= error;
    for (const request of waiting.values()) request.reject(ended);
    waiting.clear();
  };
  child.on("error", (error) => end(new Error(`${command} does not start: ${error.message}`)));
  child.on("exit", (code, signal) => end(new Error(`dearlite ended (${signal ?? `exit status ${code}`})`)));
  child.stdin.on("error", () => {}); // it has ended: "exit" follows
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { id, method, params, result, error } = JSON.parse(line);
    if (method === "progress") return waiting.get(params.id)?.onProgress?.(params.done, params.total);
    const request = waiting.get(id);
    waiting.delete(id);
    if (request) error ? request.reject(new Error(error.message)) : request.resolve(result);
  });
  const send = (message) => child.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
  return {
    // Rejects with an AbortError when `signal` is aborted, and at once after the end of the server or after close().
    rerank(query, documents, options = {}, { onProgress, signal } = {}) {
      if (ended) return Promise.reject(ended);
      if (signal?.aborted) return Promise.reject(abortError());
      const id = ++last;
      const abort = () => { waiting.get(id)?.reject(abortError()); waiting.delete(id); send({ method: "cancel", params: { id } }); };
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject, onProgress });
        signal?.addEventListener("abort", abort);
        send({ id, method: "rerank", params: { query, documents, ...options } });
      }).finally(() => signal?.removeEventListener("abort", abort));
    },
    // Stops the work that runs.
    close() {
      end(new Error("the sidecar was closed"));
      child.stdin.end();
    },
  };
}

function abortError() {
  return new DOMException("the request was aborted", "AbortError");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const sidecar = startSidecar(undefined, process.argv.slice(2));
  const documents = ["Coffee is good for diet", "Edison's bulb, 1879"];
  const { results } = await sidecar.rerank("who invented the light bulb?", documents);
  for (const { index, relevance_score } of results) console.log(relevance_score.toFixed(3), documents[index]);
  sidecar.close();
}
