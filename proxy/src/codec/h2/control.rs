//! The frames that are not messages: priorities, resets, settings, pings, farewells, windows.

use super::connection::{Connection, Fatal, MAX_WINDOW, Role};
use super::frame::{Code, Head, flag, kind, number, setting};

impl Connection {
    pub(super) fn on_priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        self.budget.priority()?;
        if head.stream == 0 {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        match number(payload) {
            Some(depends) if payload.len() == 5 => {
                if depends & 0x7fff_ffff == head.stream {
                    return self.refuse(head.stream, Code::PROTOCOL_ERROR);
                }
                Ok(())
            }
            _ => self.refuse(head.stream, Code::FRAME_SIZE_ERROR),
        }
    }

    pub(super) fn on_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        if payload.len() != 4 {
            return Err(Fatal(Code::FRAME_SIZE_ERROR));
        }
        let code = Code(number(payload).unwrap_or(0));
        if self.role == Role::Server {
            self.budget.reset()?;
        }
        if let Some(stream) = self.streams.get_mut(head.stream) {
            // The answer was complete: RST with NO_ERROR only stops the rest of the request.
            if !(stream.recv_end && code == Code::NO_ERROR) {
                stream.reset = Some(code);
            }
            stream.pending = bytes::Bytes::new();
            stream.send_end = true;
            stream.wake_both();
        }
        self.bury(head.stream);
        Ok(())
    }

    pub(super) fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let fatal = |code| Err(Fatal(code));
        if head.stream != 0 {
            return fatal(Code::PROTOCOL_ERROR);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { fatal(Code::FRAME_SIZE_ERROR) };
        }
        if !payload.len().is_multiple_of(6) {
            return fatal(Code::FRAME_SIZE_ERROR);
        }
        self.budget.control()?;
        for entry in payload.chunks_exact(6) {
            let (id, value) = entry.split_at_checked(2).ok_or(Fatal(Code::FRAME_SIZE_ERROR))?;
            let id = id.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            self.set(id, number(value).unwrap_or(0))?;
        }
        self.control_frame(kind::SETTINGS, flag::ACK, 0, &[])?;
        self.pump();
        Ok(())
    }

    fn set(&mut self, id: u16, value: u32) -> Result<(), Fatal> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_max(value as usize),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                return Err(Fatal(Code::PROTOCOL_ERROR));
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer_max_streams = value,
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > MAX_WINDOW {
                    return Err(Fatal(Code::FLOW_CONTROL_ERROR));
                }
                let change = i64::from(value) - self.peer_stream_window;
                self.peer_stream_window = i64::from(value);
                for (id, stream) in self.streams.iter_mut() {
                    stream.send_window += change;
                    if stream.send_window > MAX_WINDOW {
                        return Err(Fatal(Code::FLOW_CONTROL_ERROR));
                    }
                    if !stream.pending.is_empty() && !std::mem::replace(&mut stream.queued, true) {
                        self.waiting.push_back(id);
                    }
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(16_384..=16_777_215).contains(&value) {
                    return Err(Fatal(Code::PROTOCOL_ERROR));
                }
                self.peer_max_payload = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL => match value {
                0 | 1 => self.peer_connect_protocol = value == 1,
                _ => return Err(Fatal(Code::PROTOCOL_ERROR)),
            },
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        if payload.len() != 8 {
            return Err(Fatal(Code::FRAME_SIZE_ERROR));
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        self.budget.control()?;
        self.control_frame(kind::PING, flag::ACK, 0, payload)
    }

    pub(super) fn on_goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        let last = number(payload).ok_or(Fatal(Code::FRAME_SIZE_ERROR))? & 0x7fff_ffff;
        if payload.len() < 8 {
            return Err(Fatal(Code::FRAME_SIZE_ERROR));
        }
        self.goaway_received = true;
        if self.role == Role::Client {
            for (_, stream) in self.streams.iter_mut().filter(|(id, _)| *id > last) {
                stream.reset = Some(Code::REFUSED_STREAM);
                stream.wake_both();
            }
        }
        Ok(())
    }

    pub(super) fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if payload.len() != 4 {
            return Err(Fatal(Code::FRAME_SIZE_ERROR));
        }
        self.budget.window_update()?;
        let more = i64::from(number(payload).unwrap_or(0) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += more;
            if more == 0 {
                return Err(Fatal(Code::PROTOCOL_ERROR));
            }
            if self.send_window > MAX_WINDOW {
                return Err(Fatal(Code::FLOW_CONTROL_ERROR));
            }
            self.pump();
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        let Some(stream) = self.streams.get_mut(head.stream) else { return Ok(()) };
        stream.send_window += more;
        if more == 0 {
            return self.refuse(head.stream, Code::PROTOCOL_ERROR);
        }
        if stream.send_window > MAX_WINDOW {
            return self.refuse(head.stream, Code::FLOW_CONTROL_ERROR);
        }
        if !stream.pending.is_empty() && !std::mem::replace(&mut stream.queued, true) {
            self.waiting.push_back(head.stream);
        }
        self.pump();
        Ok(())
    }

    /// Gives bytes that a reader took back to the peer's windows, once half a window is due.
    pub(super) fn credit(&mut self, id: u32, bytes: u32) {
        self.credit += bytes;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.credit += bytes;
            if stream.credit >= self.config.stream_window / 2 && !stream.recv_end {
                let more = std::mem::take(&mut stream.credit);
                stream.recv_window += i64::from(more);
                self.frame(kind::WINDOW_UPDATE, 0, id, &more.to_be_bytes());
            }
        }
        self.grant_connection();
    }

    pub(super) fn grant_connection(&mut self) {
        if self.credit >= self.config.connection_window / 2 && self.fatal.is_none() {
            let more = std::mem::take(&mut self.credit);
            self.recv_window += i64::from(more);
            self.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }
}
