//! A program of the box at a terminal, and somebody who reads its questions before answering.

use crate::boxed::SysBox;
use harness::{DEADLINE, wait_for, wait_until};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// The program, and our end of its terminal.
pub struct Terminal {
    child: Child,
    ours: File,
    shown: Arc<Mutex<Vec<u8>>>,
    /// How much of it has been answered.
    read: usize,
}

impl Terminal {
    /// Starts it.
    pub fn start(boxed: &SysBox, command: &[&str]) -> Result<Terminal, String> {
        let failed = |error: std::io::Error| format!("terminal: {error}");
        let pty = openpty(None, None).map_err(|errno| failed(errno.into()))?;
        let theirs = || pty.slave.try_clone().map(Stdio::from).map_err(failed);
        let mut child = boxed.command(command);
        child.stdin(theirs()?).stdout(theirs()?).stderr(theirs()?);
        let child = child.spawn().map_err(failed)?;
        let ours = File::from(pty.master);
        let (mut from, shown) = (ours.try_clone().map_err(failed)?, Arc::default());
        let into: Arc<Mutex<Vec<u8>>> = Arc::clone(&shown);
        // Ends with the program, whose end of the terminal is the last one then.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                into.lock()
                    .expect("no holder panics")
                    .extend_from_slice(&bytes[..len]);
            }
        });
        Ok(Terminal {
            child,
            ours,
            shown,
            read: 0,
        })
    }

    /// Waits until this stands on the terminal, after what was answered before.
    pub fn expect(&mut self, text: &str) -> Result<(), String> {
        let read = self.read;
        let end = wait_for(DEADLINE, || {
            let shown = self.shown.lock().expect("no holder panics");
            let mut windows = shown[read..].windows(text.len());
            let at = windows.position(|window| window == text.as_bytes())?;
            Some(read + at + text.len())
        });
        self.read = end.ok_or_else(|| format!("no {text:?} in:\n{}", self.transcript()))?;
        Ok(())
    }

    /// Types a line.
    pub fn enter(&mut self, line: &str) -> Result<(), String> {
        self.send(&format!("{line}\n"))
    }

    /// Types.
    pub fn send(&mut self, text: &str) -> Result<(), String> {
        let written = self.ours.write_all(text.as_bytes());
        written.map_err(|error| format!("typing: {error}"))
    }

    /// Whether it shows what is typed.
    pub fn echoes(&self) -> Result<bool, String> {
        let settings = tcgetattr(&self.ours).map_err(|errno| format!("terminal: {errno}"))?;
        Ok(settings.local_flags.contains(LocalFlags::ECHO))
    }

    /// Waits for the program's end.
    pub fn ended(&mut self) -> Result<Option<i32>, String> {
        let status = wait_for(DEADLINE, || self.child.try_wait().ok().flatten());
        let status = status.ok_or_else(|| format!("still runs:\n{}", self.transcript()))?;
        // Its last words may still be on their way.
        let _ = wait_until(DEADLINE, || Arc::strong_count(&self.shown) == 1);
        Ok(status.code())
    }

    /// All that was shown.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no holder panics")).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended, or a check has failed
        let _ = self.child.wait();
    }
}
