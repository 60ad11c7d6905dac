//! dearlite as a part of a Rust program, such as the core of a Tauri app; nothing but the standard library is needed.
//! Try it: rustc examples/sidecar/sidecar.rs && ./sidecar
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running server. It ends when this value is dropped, and with this program, since its standard input closes then.
pub struct Sidecar {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    last: u64,
}

impl Sidecar {
    pub fn start(command: &str, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(command)
            .args(["serve", "--stdio", "--quiet"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|err| io::Error::new(err.kind(), format!("{command} does not start: {err}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("piped above"));
        Ok(Self { child, input, output: BufReader::new(output), last: 0 })
    }

    /// The answer to a request, a line of JSON with `result` or `error`. `params` is JSON without line breaks.
    pub fn call(&mut self, method: &str, params: &str) -> io::Result<String> {
        self.last += 1;
        let input = self.input.as_mut().expect("taken only when dropped");
        let request = format!(r#"{{"jsonrpc": "2.0", "id": {}, "method": "{method}", "params": {params}}}"#, self.last);
        writeln!(input, "{request}").and_then(|()| input.flush())?;
        let answers = format!(r#"{{"jsonrpc": "2.0", "id": {}, "#, self.last);
        let mut line = String::new();
        while !line.starts_with(&answers) {
            line.clear(); // a notification: `ready` or `progress`
            if self.output.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "dearlite ended"));
            }
        }
        Ok(line)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn main() -> io::Result<()> {
    let command = std::env::var("DEARLITE").unwrap_or("dearlite".into());
    let mut sidecar = Sidecar::start(&command, &std::env::args().skip(1).collect::<Vec<_>>())?;
    let params = r#"{"query": "who invented the light bulb?", "documents": ["Coffee is good for diet", "Edison's bulb, 1879"]}"#;
    print!("{}", sidecar.call("rerank", params)?);
    Ok(())
}
