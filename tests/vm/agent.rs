//! Commands inside the machine, through its guest agent (qemu-guest-agent, QEMU's "QGA" protocol: one
//! JSON object a line on a virtio port). It runs as root in a unit of its own; what it runs belongs to
//! that unit.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::suite::Outcome;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// For one answer of the agent's, which itself never waits for anything.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// How often a command is asked whether it has ended. Each question costs the machine an interrupt.
const POLL: Duration = Duration::from_millis(50);

/// How long the agent may be silent after it was called before it is called again: while the machine
/// boots nobody listens.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// What timeout(1) needs to kill what it started, and the agent to notice.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the agent.
pub struct Agent {
    stream: BufReader<UnixStream>,
    called: u64,
}

impl Agent {
    /// Connects to QEMU's end; whether an agent is behind it shows [`Agent::answers`].
    pub fn connect(socket: &Path) -> std::io::Result<Agent> {
        let stream = UnixStream::connect(socket)?;
        Ok(Agent {
            stream: BufReader::new(stream),
            called: 0,
        })
    }

    /// Calls it once. Answers to earlier calls, which lay in the port while nobody listened, are
    /// passed over.
    pub fn answers(&mut self) -> bool {
        self.called += 1;
        let call = json!({"execute": "guest-sync", "arguments": {"id": self.called}});
        if self.send(&call).is_err() {
            return false;
        }
        let end = Instant::now() + CALL_AGAIN;
        while Instant::now() < end {
            match self.receive(CALL_AGAIN) {
                Ok(answer) if answer["return"] == self.called => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Runs a command and waits for it; after `deadline` it is killed inside.
    pub fn run(&mut self, deadline: Duration, command: &[&str]) -> Outcome {
        self.try_run(deadline, command)
            .unwrap_or_else(|why| Outcome {
                code: None,
                stdout: String::new(),
                stderr: format!("the machine's agent: {why}"),
            })
    }

    fn try_run(&mut self, deadline: Duration, command: &[&str]) -> Result<Outcome, String> {
        let seconds = deadline.as_secs().max(1).to_string();
        let mut words = vec!["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"];
        words.extend(["LANG=C.UTF-8", "timeout", "--kill-after=5", &seconds]);
        words.extend(command);
        let started = self.ask(
            "guest-exec",
            &json!({"path": "/usr/bin/env", "arg": words, "capture-output": true}),
        )?;
        let end = Instant::now() + deadline + PATIENCE;
        while Instant::now() < end {
            let status = self.ask("guest-exec-status", &json!({"pid": started["pid"]}))?;
            if status["exited"] == true {
                return Ok(Outcome {
                    code: status["exitcode"]
                        .as_i64()
                        .and_then(|code| i32::try_from(code).ok()),
                    stdout: text(&status["out-data"]),
                    stderr: text(&status["err-data"]),
                });
            }
            std::thread::sleep(POLL);
        }
        Err(format!("{command:?} still runs after {deadline:?}"))
    }

    /// One question, one answer.
    fn ask(&mut self, what: &str, arguments: &Value) -> Result<Value, String> {
        self.send(&json!({"execute": what, "arguments": arguments}))
            .map_err(|e| format!("{what}: {e}"))?;
        let mut answer = self
            .receive(ANSWER_DEADLINE)
            .map_err(|e| format!("{what}: {e}"))?;
        match answer.get_mut("return") {
            Some(returned) => Ok(returned.take()),
            None => Err(format!("{what}: {answer}")),
        }
    }

    fn send(&mut self, question: &Value) -> std::io::Result<()> {
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        stream.write_all(format!("{question}\n").as_bytes())
    }

    fn receive(&mut self, patience: Duration) -> std::io::Result<Value> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_str(line.trim())?),
        }
    }
}

/// The agent's bytes are base64 (RFC 4648 §4), and absent where there are none.
fn text(data: &Value) -> String {
    let bytes = STANDARD.decode(data.as_str().unwrap_or_default());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}
