//! Hexadecimal digits, two for each byte, in lower case.

/// The digits of these bytes.
pub(crate) fn digits(bytes: &[u8]) -> impl Iterator<Item = char> {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.map(|nibble| char::from_digit(nibble.into(), 16).unwrap_or('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(digits(&[0x00, 0x0f, 0xa5]).collect::<String>(), "000fa5");
    }
}
