//! Numbers as text, without the formatting machinery: it would be a tenth of a message's time.

/// A number in decimal, on the stack.
pub struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    /// Without leading zeros.
    #[inline]
    pub fn new(number: u32) -> Decimal {
        let mut decimal = Decimal { digits: [b'0'; 10], start: 10 };
        let mut rest = number;
        loop {
            decimal.start -= 1;
            decimal.digits[decimal.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return decimal;
            }
        }
    }

    /// The digits.
    #[inline]
    pub fn text(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_without_leading_zeros() {
        for number in [0, 1, 9, 10, 99, 100, 101, 5060, 65_535, 999_999_999, u32::MAX] {
            assert_eq!(Decimal::new(number).text(), number.to_string().as_bytes());
        }
    }
}
