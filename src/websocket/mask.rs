//! The masks of a peer's payloads (RFC 6455 5.3).

/// A masking key behind `bytes` of the payload.
pub(crate) fn rotated(mask: [u8; 4], bytes: usize) -> [u8; 4] {
    u32::from_le_bytes(mask).rotate_right(8 * (bytes % 4) as u32).to_le_bytes()
}

/// Takes the mask off a payload where it lies, 16 bytes at a time; returns whether it is ASCII, and so
/// needs no other look to be UTF-8.
pub(crate) fn unmask(payload: &mut [u8], [a, b, c, d]: [u8; 4]) -> bool {
    let keys = [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];
    let wide = u128::from_ne_bytes(keys);
    let mut seen = 0;
    let mut blocks = payload.chunks_exact_mut(16);
    for block in blocks.by_ref() {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(block);
        let plain = u128::from_ne_bytes(bytes) ^ wide;
        seen |= plain;
        block.copy_from_slice(&plain.to_ne_bytes());
    }
    let mut last = 0;
    for (byte, key) in blocks.into_remainder().iter_mut().zip(keys) {
        *byte ^= key;
        last |= *byte;
    }
    seen & u128::from_ne_bytes([0x80; 16]) == 0 && last < 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::decoder::tests::frame;

    #[test]
    fn mask_is_removed_from_every_byte_and_a_byte_that_is_not_ascii_is_seen() {
        for len in 0..50 {
            for odd in 0..=len {
                let mut plain = vec![b'x'; len];
                plain.iter_mut().skip(odd).take(1).for_each(|byte| *byte = 0x80);
                let mut masked = frame(0x81, &plain).split_off(6);
                assert_eq!(unmask(&mut masked, [1, 2, 3, 4]), odd == len, "{odd} of {len}");
                assert_eq!(masked, plain);
            }
        }
    }
}
