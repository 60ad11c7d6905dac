// dearlite as a sidecar of a Tauri 2 app, in its page. Two settings belong to it:
// tauri.conf.json:           "bundle": { "externalBin": ["binaries/dearlite"] }
// capabilities/default.json: { "identifier": "shell:allow-spawn", "allow": [{ "name": "binaries/dearlite",
//                              "sidecar": true, "args": ["serve", "--stdio", "--quiet"] }] },
//                            "shell:allow-stdin-write", "shell:allow-kill"
// The file is binaries/dearlite-<target triple>[.exe], such as a frozen `dearlite`.
import { Command } from "@tauri-apps/plugin-shell";

type Request = { resolve: (result: any) => void; reject: (error: Error) => void };

// Starts the server. Requests reject at once after its end or after close(), and with an AbortError by their signal.
export async function startSidecar() {
  const waiting = new Map<number, Request>();
  let last = 0;
  let ended: Error | null = null;
  const end = (error: Error) => {
    ended ??= error;
    for (const request of waiting.values()) request.reject(ended);
    waiting.clear();
  };
  const command = Command.sidecar("binaries/dearlite", ["serve", "--stdio", "--quiet"]);
  command.on("error", (reason) => end(new Error(`dearlite failed: ${reason}`)));
  command.on("close", ({ code, signal }) => end(new Error(`dearlite ended (${signal ? `signal ${signal}` : `exit status ${code}`})`)));
  command.stderr.on("data", (line) => console.error(line));
  command.stdout.on("data", (line) => {
    const { id, result, error } = JSON.parse(line);
    const request = waiting.get(id);
    waiting.delete(id);
    if (request) error ? request.reject(new Error(error.message)) : request.resolve(result);
  });
  const child = await command.spawn();
  const send = (message: object) => child.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
  return {
    rerank(query: string, documents: string[], options: object = {}, signal?: AbortSignal): Promise<any> {
      if (ended) return Promise.reject(ended);
      if (signal?.aborted) return Promise.reject(abortError());
      const id = ++last;
      const fail = (reason: unknown) => { waiting.get(id)?.reject(new Error(`dearlite cannot be reached: ${reason}`)); waiting.delete(id); };
      const abort = () => {
        waiting.get(id)?.reject(abortError());
        waiting.delete(id);
        send({ method: "cancel", params: { id } }).catch(() => {}); // it has ended: "close" follows
      };
      return new Promise<any>((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        signal?.addEventListener("abort", abort);
        send({ id, method: "rerank", params: { query, documents, ...options } }).catch(fail);
      }).finally(() => signal?.removeEventListener("abort", abort));
    },
    async close() {
      end(new Error("the sidecar was closed"));
      await child.kill();
    },
  };
}

function abortError() {
  return new DOMException("the request was aborted", "AbortError");
}
