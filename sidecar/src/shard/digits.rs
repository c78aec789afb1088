//! Numbers as text, without the formatting machinery: it would be a tenth of a message's time.

use std::fmt::Write;
use std::net::IpAddr;

/// Append `value` in decimal.
pub(super) fn decimal(out: &mut String, value: u16) {
    let mut power = 10_000;
    while power > value && power > 1 {
        power /= 10;
    }
    while power > 0 {
        out.push(char::from(b'0' + (value / power % 10) as u8));
        power /= 10;
    }
}

/// Append an address as Via's `received` has it, IPv6 without brackets.
pub(super) fn address(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => ip.octets().into_iter().enumerate().for_each(|(place, octet)| {
            if place > 0 {
                out.push('.');
            }
            decimal(out, u16::from(octet));
        }),
        IpAddr::V6(ip) => write!(out, "{ip}").expect("writing to a String cannot fail"),
    }
}

/// Append the last `digits` hexadecimal digits of `value`.
pub(super) fn hex(out: &mut Vec<u8>, value: u64, digits: usize) {
    let digit = |place| b"0123456789abcdef"[(value >> (4 * place) & 0xf) as usize];
    out.extend((0..digits).rev().map(digit));
}

/// The number that exactly these hexadecimal digits are.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_without_leading_zeros() {
        for value in [0, 1, 9, 10, 99, 100, 101, 5060, 9999, 10_000, 65_535] {
            let mut out = String::new();
            decimal(&mut out, value);
            assert_eq!(out, value.to_string());
        }
    }

    #[test]
    fn addresses_are_written_as_std_writes_them() {
        for ip in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "2001:db8::1"] {
            let mut out = String::new();
            address(&mut out, ip.parse().unwrap());
            assert_eq!(out, ip);
        }
    }

    #[test]
    fn hexadecimal_digits_are_written_and_read() {
        let mut out = Vec::new();
        hex(&mut out, 0x01ab_cdef, 8);
        assert_eq!((out.as_slice(), parse_hex(&out)), (&b"01abcdef"[..], Some(0x01ab_cdef)));
        for bad in ["", "+1", "-1", "g", "123456789"] {
            assert_eq!(parse_hex(bad.as_bytes()), None, "{bad}");
        }
    }
}
