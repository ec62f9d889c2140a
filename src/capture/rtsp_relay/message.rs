//! Pure: what an RTSP connection carries (RFC 2326, sections 4 to 7 and 10.12), taken apart and put together.
//!
//! Cameras break the rules in small ways that GStreamer's client forgives. So does this: what it does not have to
//! change goes on as it came.

/// The longest head of a message: first line and headers.
const MAX_HEAD: usize = 64 << 10;
/// The longest body of a message, such as a session description.
const MAX_BODY: usize = 1 << 20;

/// The most characters of a status that are shown.
const MAX_REASON: usize = 100;

/// The first byte of interleaved data.
const DATA: u8 = b'$';
/// The bytes before the content of interleaved data: `$`, channel, and length.
const DATA_HEAD: usize = 4;

/// The highest channel that is looked for among stray bytes: a camera has few streams.
const MAX_CHANNEL: u8 = 31;
/// What a response begins with.
const RESPONSE: &[u8] = b"RTSP/1.0 ";

/// Something that cannot be RTSP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotRtsp;

/// One piece of an RTSP connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Interleaved data, with its head.
    Data(&'a [u8]),
    /// A request or a response.
    Message(Message),
}

/// Takes the first piece off `bytes`. Returns it and its length. `None`: it has not arrived as a whole.
///
/// # Errors
/// If these bytes do not begin a piece, or one that is too long.
pub(super) fn first_piece(bytes: &[u8]) -> Result<Option<(Piece<'_>, usize)>, NotRtsp> {
    if let [DATA, rest @ ..] = bytes {
        let [_, high, low, ..] = *rest else { return Ok(None) };
        let length = DATA_HEAD + usize::from(u16::from_be_bytes([high, low]));
        return Ok(bytes.get(..length).map(|piece| (Piece::Data(piece), length)));
    }
    // Empty lines between messages are allowed.
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    if start > MAX_HEAD {
        return Err(NotRtsp);
    }
    let Some(&first) = bytes.get(start) else { return Ok(None) };
    if !first.is_ascii_uppercase() {
        return match first {
            DATA if start > 0 => {
                let piece = first_piece(&bytes[start..])?;
                Ok(piece.map(|(piece, length)| (piece, start + length)))
            }
            _ => Err(NotRtsp),
        };
    }
    if !may_be_message(&bytes[start..]) {
        return Err(NotRtsp);
    }
    let Some(head) = head_length(&bytes[start..]) else {
        return if bytes.len() - start > MAX_HEAD { Err(NotRtsp) } else { Ok(None) };
    };
    let mut message = Message::of_head(&bytes[start..start + head]).ok_or(NotRtsp)?;
    let body = message.header("Content-Length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if body > MAX_BODY {
        return Err(NotRtsp);
    }
    let length = start + head + body;
    Ok(bytes.get(start + head..length).map(|body| {
        message.body = body.into();
        (Piece::Message(message), length)
    }))
}

/// How many of these bytes, which do not begin a piece, stand before what may begin one: interleaved data that another
/// piece follows, or a response. At least one.
pub(super) fn stray_length(bytes: &[u8]) -> usize {
    let begins_piece = |bytes: &[u8]| match bytes {
        [DATA, channel, high, low, ..] => {
            let length = DATA_HEAD + usize::from(u16::from_be_bytes([*high, *low]));
            let next = bytes.get(length);
            *channel <= MAX_CHANNEL && next.is_none_or(|next| matches!(next, &DATA | b'R' | b'\r' | b'\n'))
        }
        // Too few to tell.
        [DATA, ..] => true,
        _ => bytes.starts_with(RESPONSE) || RESPONSE.starts_with(bytes),
    };
    // Nothing is looked for in a head that was too long: what looks like the next one would be as long.
    let is_long_head = bytes.len() > MAX_HEAD && may_be_message(bytes) && head_length(bytes).is_none();
    let from = if is_long_head { MAX_HEAD } else { 1 };
    (from..bytes.len()).find(|at| begins_piece(&bytes[*at..])).unwrap_or(bytes.len())
}

/// Whether a first line, as far as it has come, may be that of a message.
fn may_be_message(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|b| matches!(b, b'\r' | b'\n'));
    let first_line = lines.next().unwrap_or_default();
    let is_whole = lines.next().is_some();
    let names_rtsp = || first_line.windows(5).any(|word| word == b"RTSP/");
    !first_line.iter().any(|b| b.is_ascii_control() && *b != b'\t') && (!is_whole || names_rtsp())
}

/// The length of first line, headers and the empty line behind them.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut line_ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    let mut line_start = line_ends.next()?;
    for line_end in line_ends {
        if matches!(&bytes[line_start..line_end], b"\n" | b"\r\n") {
            return Some(line_end);
        }
        line_start = line_end;
    }
    None
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    first_line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    /// A request without headers.
    pub fn request(method: &str, uri: &str) -> Self {
        Self { first_line: format!("{method} {uri} RTSP/1.0"), headers: Vec::new(), body: Vec::new() }
    }

    /// A response without headers.
    pub fn response(status: u16, reason: &str) -> Self {
        Self { first_line: format!("RTSP/1.0 {status} {reason}"), headers: Vec::new(), body: Vec::new() }
    }

    fn of_head(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let first_line = lines.next()?.trim_end().to_owned();
        if !first_line.contains("RTSP/") {
            return None;
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), headers.last_mut()) {
                // A long value goes on in the next line.
                value.push(' ');
                value.push_str(line.trim());
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.trim().into(), value.trim().into()));
            }
        }
        Some(Self { first_line, headers, body: Vec::new() })
    }

    /// The status of a response. `None`: this is a request.
    pub fn status(&self) -> Option<u16> {
        let mut words = self.first_line.split_whitespace();
        words.next().filter(|word| word.starts_with("RTSP/"))?;
        Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0))
    }

    /// Status and reason of a response, such as `404 Not Found`: not more of it than a person reads.
    pub fn status_text(&self) -> String {
        self.first_line.split_once(' ').unwrap_or_default().1.chars().take(MAX_REASON).collect()
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.first_line.split_whitespace().next().unwrap_or_default()
    }

    /// The URI of a request.
    pub fn uri(&self) -> &str {
        self.first_line.split_whitespace().nth(1).unwrap_or_default()
    }

    /// Replaces the URI of a request.
    pub fn set_uri(&mut self, uri: &str) {
        self.first_line = format!("{} {uri} RTSP/1.0", self.method());
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of a header.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Replaces a header, or adds it.
    pub fn set_header(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.headers.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.headers.push((name.into(), value)),
        }
    }

    /// Removes a header.
    pub fn remove_header(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// The number of a request, which its response repeats.
    pub fn sequence(&self) -> Option<u32> {
        self.header("CSeq")?.parse().ok()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Appends the message, as it goes over the wire.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.first_line.as_bytes());
        to.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            to.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        to.extend_from_slice(b"\r\n");
        to.extend_from_slice(&self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        match first_piece(text.as_bytes()) {
            Ok(Some((Piece::Message(message), length))) if length == text.len() => message,
            other => panic!("{text:?} gives {other:?}"),
        }
    }

    #[test]
    fn a_connection_is_taken_apart_wherever_it_is_cut() {
        let bytes =
            b"$\x00\x00\x02ab\r\nRTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 4\r\n\r\nv=0\n$\x01\x00\x00";
        let mut lengths = Vec::new();
        let (mut taken, mut arrived) = (0, 0);
        while arrived < bytes.len() {
            arrived += 1;
            while let Some((_, length)) = first_piece(&bytes[taken..arrived]).unwrap() {
                lengths.push(length);
                taken += length;
            }
        }
        assert_eq!(lengths, [6, bytes.len() - 10, 4]);
    }

    #[test]
    fn a_message_goes_on_as_it_came() {
        let text = "SETUP rtsp://h/a RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP\r\nX: a\r\nX: b\r\n\r\n";
        let parsed = message(text);
        let mut written = Vec::new();
        parsed.write(&mut written);
        assert_eq!(written, text.as_bytes());
        assert_eq!((parsed.method(), parsed.uri(), parsed.status()), ("SETUP", "rtsp://h/a", None));
        assert_eq!(parsed.headers("x").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_cameras_write_is_read() {
        let parsed = message("RTSP/1.0 200\nCSEQ:7\nPublic : OPTIONS,\n\tPLAY\n\n");
        assert_eq!((parsed.status(), parsed.sequence()), (Some(200), Some(7)));
        assert_eq!(parsed.header("public"), Some("OPTIONS, PLAY"));
    }

    #[test]
    fn the_next_piece_is_found_behind_stray_bytes() {
        for (stray, rest) in [
            (&b"\x00"[..], &b"$\x00\x00\x02ab$\x00"[..]),
            (b"\x00\x01$\x63\x00\x01a", b"$\x00\x00\x02abRTSP"),
            (b"\x00$\x00\x00\x01ab", b"$\x00\x00\x02ab"),
            (b"\x00RT", b"RTSP/1.0 200 OK\r\n\r\n"),
            (b"\x00", b"$"),
            (b"\x00abc", b""),
        ] {
            assert_eq!(stray_length(&[stray, rest].concat()), stray.len(), "{stray:?} {rest:?}");
        }
    }

    #[test]
    fn what_is_no_rtsp_is_an_error_and_not_read_for_ever() {
        assert_eq!(first_piece(b"\x15\x03\x01"), Err(NotRtsp));
        assert_eq!(first_piece(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Err(NotRtsp));
        assert_eq!(first_piece(&[b'A'; MAX_HEAD + 1]), Err(NotRtsp));
        assert_eq!(stray_length(&[b'A'; MAX_HEAD + 1]), MAX_HEAD + 1);
        assert_eq!(stray_length(&b"RTSP/1.0 ".repeat(10_000)), MAX_HEAD + 2);
        assert_eq!(first_piece(&[b'\n'; MAX_HEAD + 1]), Err(NotRtsp));
        assert_eq!(first_piece(b"Q\x00\x17"), Err(NotRtsp));
        assert_eq!(first_piece(b"Q\nR"), Err(NotRtsp));
        let long = format!("RTSP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
        assert_eq!(first_piece(long.as_bytes()), Err(NotRtsp));
    }
}
