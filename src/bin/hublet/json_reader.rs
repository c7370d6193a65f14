//! A reader of the JSON in tokens. It builds no tree: its caller takes the members that it knows.

/// Reads a JSON object (RFC 8259), member by member.
pub(crate) fn read_object(json: &[u8], member: &mut Member<'_>) -> Option<()> {
    let mut reader = Reader { rest: std::str::from_utf8(json).ok()? };
    reader.object(member)?;
    reader.space();
    reader.rest.is_empty().then_some(())
}

/// A function that gets a member's name and reads its value.
pub(crate) type Member<'a> = dyn FnMut(&str, &mut Reader<'_>) -> Option<()> + 'a;

/// A JSON reader. Each method reads one value, or returns `None`, which ends the reading.
pub(crate) struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Skips `sign` if it is next.
    fn sign(&mut self, sign: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads elements between `open` and `close`, with commas between them.
    fn list(
        &mut self,
        [open, close]: [char; 2],
        each: &mut dyn FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if !self.sign(open) {
            return None;
        }
        if self.sign(close) {
            return Some(());
        }
        loop {
            each(self)?;
            if !self.sign(',') {
                return self.sign(close).then_some(());
            }
        }
    }

    fn object(&mut self, member: &mut Member<'_>) -> Option<()> {
        self.list(['{', '}'], &mut |reader| {
            let key = reader.string()?;
            if !reader.sign(':') {
                return None;
            }
            member(&key, reader)
        })
    }

    /// A list of strings. A single string counts as a list of one.
    pub(crate) fn strings(&mut self) -> Option<Vec<String>> {
        self.space();
        if self.rest.starts_with('"') {
            return Some(vec![self.string()?]);
        }
        let mut strings = Vec::new();
        self.list(['[', ']'], &mut |reader| {
            strings.push(reader.string()?);
            Some(())
        })?;
        Some(strings)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        if !self.sign('"') {
            return None;
        }
        let mut string = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => {
                    let escaped = characters.next()?;
                    string.push(match escaped {
                        '"' | '\\' | '/' => escaped,
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'u' => unicode(&mut characters)?,
                        _ => return None,
                    });
                }
                character if character < ' ' => return None,
                character => string.push(character),
            }
        }
        self.rest = characters.as_str();
        Some(string)
    }

    /// A NumericDate (RFC 7519 section 2), which is any number of JSON: whole seconds, and whether
    /// there is a fraction. A time before 1970 counts as its first moment.
    ///
    /// The digits are shifted as text, so that nothing is rounded.
    pub(crate) fn seconds(&mut self) -> Option<(u64, bool)> {
        let number = self.number()?;
        let (number, is_negative) = match number.strip_prefix('-') {
            Some(number) => (number, true),
            None => (number, false),
        };
        let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // The bound on the exponent is one on the steps below.
        let exponent: i16 = exponent.parse().ok()?;
        let shift = isize::from(exponent);
        let point = whole.len().checked_add_signed(shift).unwrap_or(0);
        let mut digits = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0');
        let mut seconds: u64 = 0;
        for _ in 0..point {
            let digit = digits.next().unwrap_or(0);
            seconds = seconds.checked_mul(10)?.checked_add(digit.into())?;
        }
        let more = digits.any(|digit| digit != 0);
        Some(if is_negative { (0, false) } else { (seconds, more) })
    }

    fn number(&mut self) -> Option<&str> {
        self.space();
        let is_sign = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_sign(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        is_number(number).then_some(number)
    }

    /// Skips any value with at most `depth` nested lists and objects.
    pub(crate) fn skip(&mut self, depth: u32) -> Option<()> {
        self.space();
        let deeper = depth.checked_sub(1);
        match self.rest.chars().next()? {
            '"' => self.string().map(drop),
            '{' => {
                let deeper = deeper?;
                self.object(&mut |_, reader| reader.skip(deeper))
            }
            '[' => {
                let deeper = deeper?;
                self.list(['[', ']'], &mut |reader| reader.skip(deeper))
            }
            't' | 'f' | 'n' => {
                let mut words = ["true", "false", "null"].into_iter();
                self.rest = words.find_map(|word| self.rest.strip_prefix(word))?;
                Some(())
            }
            _ => self.number().map(drop),
        }
    }
}

/// Whether a text is a JSON number (RFC 8259 section 6).
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "0"),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let leads = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leads && digits(fraction) && digits(exponent)
}

/// Reads an escape after its `\u`, and the second one of a surrogate pair (RFC 8259 section 7).
fn unicode(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let first = code_unit(characters)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    if (characters.next()?, characters.next()?) != ('\\', 'u') {
        return None;
    }
    let low = code_unit(characters)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
}

/// Reads the four digits of an escape.
fn code_unit(characters: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit * 16 + characters.next()?.to_digit(16)?))
}
