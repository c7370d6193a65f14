//! A response of the hub, as the peers that ask over HTTP read it.

/// A response that is whole.
pub(super) struct Response<'a> {
    pub(super) status: u16,
    head: &'a str,
    pub(super) body: &'a [u8],
}

impl<'a> Response<'a> {
    /// Takes the first response off the front of a stream, once it is whole.
    pub(super) fn first(stream: &mut &'a [u8]) -> Option<Self> {
        let behind = behind_head(stream)?;
        let head = &stream[..stream.len() - behind.len()];
        let head = std::str::from_utf8(head).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3));
        let status = status.and_then(|status| status.parse().ok()).expect("a status line");
        let response = Self { status, head, body: &[] };
        let length = response.header("Content-Length: ").map(|len| len.parse().expect("a length"));
        let length = length.unwrap_or(0);
        let body = behind.get(..length)?;
        *stream = &behind[length..];
        Some(Self { body, ..response })
    }

    /// What follows the first line of the head that begins so.
    pub(super) fn header(&self, begin: &str) -> Option<&'a str> {
        self.head.lines().find_map(|line| line.strip_prefix(begin))
    }

    pub(super) fn text(&self) -> &'a str {
        std::str::from_utf8(self.body).expect("a body is text")
    }

    /// A number of a JSON body by its name.
    pub(super) fn number(&self, name: &str) -> usize {
        let (_, value) = self.text().split_once(&format!("\"{name}\":")).expect("the name");
        let digits = value.split(|char: char| !char.is_ascii_digit()).next();
        digits.and_then(|number| number.parse().ok()).expect("a number")
    }
}

/// What follows the head of a response; `None` before its end.
pub(super) fn behind_head(stream: &[u8]) -> Option<&[u8]> {
    let end = stream.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(&stream[end + 4..])
}
