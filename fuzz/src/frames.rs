//! Fuzzes a sequence of mostly well-formed frames, so that the fuzzer need not find masks and
//! lengths. The checks are those of `connection`.

use super::connection::check;

pub fn run(bytes: &[u8]) {
    let Some((&[flags, seed], mut rest)) = bytes.split_first_chunk::<2>() else { return };
    let mut frames = Vec::new();
    while let Some((&[kind, shape], after)) = rest.split_first_chunk::<2>() {
        // The low bits choose an opcode, the high one FIN. An odd kind has a reserved bit.
        let opcode = [0, 1, 2, 8, 9, 10, 1, 0][usize::from(kind & 7)];
        let odd = if kind & 0x78 == 0x78 { 0x40 | kind >> 4 } else { 0 };
        let length = match shape {
            short @ ..192 => usize::from(short & 31),
            long => usize::from(long - 190) * 5,
        };
        let (payload, after) = after.split_at(length.min(after.len()));
        // A control frame is whole and short, except one of an odd kind.
        let control = opcode >= 8;
        let payload =
            if control && odd == 0 { &payload[..payload.len().min(125)] } else { payload };
        let fin = if control && odd == 0 { 0x80 } else { kind & 0x80 };
        frames.push(fin | opcode | odd);
        match payload.len() {
            length @ ..126 => frames.push(0x80 | length as u8),
            length => {
                frames.push(0x80 | 126);
                frames.extend((length as u16).to_be_bytes());
            }
        }
        let key = [shape, kind, 0x5a, 0xff];
        frames.extend(key);
        frames.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        rest = after;
    }
    check(flags, seed, &frames);
}
