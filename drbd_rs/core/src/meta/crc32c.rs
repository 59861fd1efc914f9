// SPDX-License-Identifier: GPL-2.0

//! CRC-32C (Castagnoli), reflected, the way activity log blocks use it: start value 0, no
//! inversions.

const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = table();

#[allow(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]
const fn table() -> [u32; 256] {
    // Evaluated by the compiler only: a fault here would not build.
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                (crc >> 1) ^ POLYNOMIAL
            };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

/// Continues `crc` over `bytes`; start with 0.
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let low = crc.to_le_bytes()[0] ^ byte;
        // A byte always finds its entry; no default is ever taken.
        TABLE.get(usize::from(low)).copied().unwrap_or(0) ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_value() {
        // The published check value has start and end inverted.
        assert_eq!(!update(u32::MAX, b"123456789"), 0xe306_9283);
        assert_eq!(update(0, &[0; 64]), 0);
    }
}
