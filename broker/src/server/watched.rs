//! A connection's stream, which sees what passes.

use super::Caller;
use super::activity::Activity;
use crate::peer::Life;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// A stream that notes when bytes arrive, and takes none for a peer that has died: whoever holds its
/// socket now, a child or somebody it was passed to, would read them. An answer may wait here for
/// long, for a peer that does not read.
pub(super) struct Watched {
    pub(super) stream: UnixStream,
    pub(super) caller: Caller,
    pub(super) activity: Arc<Activity>,
}

impl Watched {
    fn for_the_living(&self) -> io::Result<()> {
        match &self.caller {
            Caller::Known(peer) if peer.life() == Life::Over => {
                Err(io::ErrorKind::BrokenPipe.into()) // ends the connection
            }
            Caller::Known(_) | Caller::Young { .. } | Caller::Unknown { .. } => Ok(()),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.note_bytes();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.for_the_living()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.for_the_living()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.activity.handed_over(); // hyper flushes when it has written all it has
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
