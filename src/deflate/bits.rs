//! Bits into bytes, the lowest first (RFC 1951 3.1.1).

/// Appends bits to bytes.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes of `out` at which the result is too long to be of use.
    end: usize,
    /// Bits that are not in `out` yet, the next one lowest.
    held: u64,
    /// How many: fewer than 32 between two calls.
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Writes behind what is in `out`, of use if it is less than `less_than` bytes.
    pub(crate) fn new(out: &'a mut Vec<u8>, less_than: usize) -> Self {
        let end = out.len() + less_than;
        Self { out, end, held: 0, count: 0 }
    }

    /// Whether what is written is still of use.
    pub(crate) fn is_short(&self) -> bool {
        self.out.len() < self.end
    }

    /// Appends the lowest `count` bits of `bits`, at most 32; the others are 0.
    pub(crate) fn put(&mut self, bits: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(bits) < 1 << count);
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// Ends with the header of an empty stored block, up to a whole byte: its length, which is always
    /// the same, is left out (RFC 7692 7.2.1).
    pub(crate) fn sync_flush(&mut self) {
        self.put(0, 3);
        let bytes = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
        (self.held, self.count) = (0, 0);
    }
}
