// dearlite as a sidecar of a Tauri 2 app, in its page. Two settings belong to it:
// tauri.conf.json:           "bundle": { "externalBin": ["binaries/dearlite"] }
// capabilities/default.json: { "identifier": "shell:allow-spawn", "allow": [{ "name": "binaries/dearlite",
//                              "sidecar": true, "args": ["serve", "--stdio", "--quiet"] }] }, "shell:allow-stdin-write"
// The file is binaries/dearlite-<target triple>[.exe], such as a frozen `dearlite`.
import { Command } from "@tauri-apps/plugin-shell";

export async function startSidecar() {
  const waiting = new Map<number, { resolve: (result: any) => void; reject: (error: Error) => void }>();
  const command = Command.sidecar("binaries/dearlite", ["serve", "--stdio", "--quiet"]);
  command.stdout.on("data", (line) => {
    const { id, result, error } = JSON.parse(line);
    const request = waiting.get(id);
    waiting.delete(id);
    if (request) error ? request.reject(new Error(error.message)) : request.resolve(result);
  });
  const child = await command.spawn();
  let last = 0;
  return (query: string, documents: string[]) =>
    new Promise<any>((resolve, reject) => {
      const id = ++last;
      waiting.set(id, { resolve, reject });
      void child.write(JSON.stringify({ jsonrpc: "2.0", id, method: "rerank", params: { query, documents } }) + "\n");
    });
}
