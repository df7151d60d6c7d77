//! Questions at the terminal, and the PIN. The PIN is typed without echo, into a buffer that is
//! wiped, and past every buffer of the standard library, which would keep a copy.
//!
//! Nothing here decides: what an answer means is the caller's.

use super::super::failure::{Exit, Failure};
use super::super::out::clean;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::read;
use std::io::{self, IsTerminal, Write};
use zeroize::Zeroizing;

/// Longest PIN in bytes, as the keystore reads it.
const PIN_LEN_MAX: usize = 1024;

/// Ctrl-C. While a PIN is typed it ends the line instead of the process, so that the terminal's
/// echo comes back.
const INTERRUPT: u8 = 3;

/// How often somebody may mistype a PIN.
const ATTEMPTS: usize = 3;

/// Whether somebody can be asked.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal()
}

/// The answer to a question, one line.
pub fn line(question: &str) -> Result<String, Failure> {
    eprint!("{}", clean(question));
    let _ = io::stderr().flush();
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(0) => Err(Failure::new(Exit::Refused, "no answer; nothing was done")),
        Ok(_) => Ok(answer.trim().to_owned()),
        Err(error) => {
            let text = format!("standard input: {error}; nothing was done");
            Err(Failure::new(Exit::Refused, text))
        }
    }
}

/// Yes or no; no unless it is yes.
pub fn agreed(question: &str) -> Result<bool, Failure> {
    Ok(matches!(line(question)?.as_str(), "y" | "Y" | "yes"))
}

/// One of so many, counted from 1 by people and from 0 here; of one only, an empty line is enough.
pub fn number(question: &str, many: usize) -> Result<usize, Failure> {
    let range = match many {
        1 => "1".to_owned(),
        many => format!("1-{many}"),
    };
    loop {
        let answer = line(&format!("{question} [{range}] "))?;
        let number = match (answer.as_str(), many) {
            ("", 1) => Some(1),
            (answer, _) => answer.parse().ok(),
        };
        match number {
            Some(number) if (1..=many).contains(&number) => return Ok(number - 1),
            _ => eprintln!("a number from 1 to {many}"),
        }
    }
}

/// The PIN: typed twice at a terminal, or all of standard input. `lengths` are what the token says
/// of it.
pub fn pin(question: &str, lengths: (u64, u64)) -> Result<Zeroizing<Vec<u8>>, Failure> {
    no_traces()?;
    if !somebody_is_there() {
        let pin = input()?;
        return match unfit(&pin, lengths) {
            None => Ok(pin),
            Some(why) => Err(refused(&format!("the PIN on standard input {why}"))),
        };
    }
    for _ in 0..ATTEMPTS {
        let pin = hidden(question)?;
        if let Some(why) = unfit(&pin, lengths) {
            eprintln!("the PIN {why}");
        } else if *hidden("the same again: ")? != *pin {
            eprintln!("these two differ");
        } else {
            return Ok(pin);
        }
    }
    Err(refused("no PIN was given"))
}

fn refused(why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{why}; nothing was done"))
}

/// No core dump may hold it, and no process of another user may read it from our memory.
fn no_traces() -> Result<(), Failure> {
    let failed = |what: &str, errno| {
        let text = format!("{what} cannot be set: {errno}");
        Failure::new(Exit::Internal, text)
    };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|e| failed("RLIMIT_CORE", e))?;
    prctl::set_dumpable(false).map_err(|e| failed("PR_SET_DUMPABLE", e))
}

/// What is wrong with it, as far as can be said without trying it. Some tokens say 0 for "I do
/// not know", and a longest that is shorter than the shortest.
fn unfit(pin: &[u8], (min, max): (u64, u64)) -> Option<String> {
    let len = pin.len() as u64;
    if pin.is_empty() {
        Some("is empty".to_owned())
    } else if pin.len() > PIN_LEN_MAX {
        Some(format!("is longer than {PIN_LEN_MAX} bytes"))
    } else if pin.iter().any(u8::is_ascii_control) {
        Some("holds a control character".to_owned())
    } else if max >= min && max > 0 && !(min..=max).contains(&len) {
        let between = format!("between {min} and {max}");
        Some(format!("has {len} bytes, and the token wants {between}"))
    } else {
        None
    }
}

/// All of standard input, without the line ending.
fn input() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut buffer = Zeroizing::new(vec![0; PIN_LEN_MAX + 3]);
    let len = fill(&mut buffer, |_| false)?;
    Ok(without_line_ending(&buffer[..len]))
}

/// One line of the terminal, without echo.
fn hidden(question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let silence = Silence::begin()?; // before the question, or the first digits might be shown
    eprint!("{}", clean(question));
    let _ = io::stderr().flush();
    let mut buffer = Zeroizing::new(vec![0; PIN_LEN_MAX + 3]);
    let filled = fill(&mut buffer, |byte| matches!(byte, b'\n' | INTERRUPT));
    drop(silence);
    eprintln!();
    let typed = &buffer[..filled?];
    if typed.contains(&INTERRUPT) {
        return Err(refused("interrupted"));
    }
    Ok(without_line_ending(typed))
}

/// Reads until the buffer is full, the input ends, or a read ends with a byte that says so.
fn fill(buffer: &mut [u8], last: impl Fn(u8) -> bool) -> Result<usize, Failure> {
    let mut len = 0;
    while len < buffer.len() {
        match read(io::stdin(), &mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(refused(&format!("standard input: {errno}"))),
        }
        if buffer[..len].last().is_some_and(|byte| last(*byte)) {
            break;
        }
    }
    Ok(len)
}

fn without_line_ending(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Zeroizing::new(text.to_vec())
}

/// A terminal that shows nothing, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Silence, Failure> {
        let failed = |errno| {
            refused(&format!(
                "the terminal's echo cannot be turned off: {errno}"
            ))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        // What was typed before the question is no answer to it.
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).map_err(failed)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // An error means that the terminal has gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_cannot_be_right_costs_no_try() {
        let anything = (0, 0);
        assert_eq!(unfit(b"1234", anything), None);
        assert_eq!(unfit(b"1234", (4, 8)), None);
        assert_eq!(unfit(b"1234", (8, 4)), None);
        assert_eq!(unfit("crypto-user:gehéim".as_bytes(), anything), None);
        for (pin, lengths) in [
            (&b""[..], anything),
            (b"12\n34", anything),
            (b"123", (4, 8)),
            (b"123456789", (4, 8)),
            (&[b'1'; PIN_LEN_MAX + 1], anything),
        ] {
            assert!(unfit(pin, lengths).is_some(), "{pin:?} {lengths:?}");
        }
    }

    #[test]
    fn one_line_ending_is_no_part_of_a_pin() {
        for (text, pin) in [
            (&b"1234"[..], &b"1234"[..]),
            (b"1234\n", b"1234"),
            (b"1234\r\n", b"1234"),
            (b" 1234 ", b" 1234 "),
        ] {
            assert_eq!(without_line_ending(text).as_slice(), pin);
        }
    }
}
