//! Numbers as text, without the formatting machinery: it would be a tenth of a message's time.

use std::fmt::Write;
use std::net::IpAddr;

/// Append `value` in decimal.
pub(super) fn decimal(out: &mut String, value: u16) {
    for power in [10_000, 1000, 100, 10] {
        if value >= power {
            out.push(digit(value / power));
        }
    }
    out.push(digit(value));
}

fn digit(value: u16) -> char {
    char::from(b'0' + (value % 10) as u8)
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

/// The hexadecimal digits of `value`.
pub(super) fn hex_of_u64(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&hex((value >> 32) as u32));
    digits[8..].copy_from_slice(&hex(value as u32));
    digits
}

/// The hexadecimal digits of `value`: its half bytes spread over eight bytes, and all made digits at once.
pub(super) fn hex(value: u32) -> [u8; 8] {
    let mut spread = u64::from(value);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 0x10 is reached by those of ten and more; 39 lie between the digits and the letters.
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

/// The number that exactly these hexadecimal digits are.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u32> {
    let add = |sum: u32, digit: &u8| Some(sum.checked_mul(16)? + char::from(*digit).to_digit(16)?);
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
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
        for (value, digits) in [(0, b"00000000"), (0x01ab_cdef, b"01abcdef"), (0x9a_5678, b"009a5678")] {
            assert_eq!((hex(value), parse_hex(digits)), (*digits, Some(value)));
        }
        assert_eq!(hex(u32::MAX), *b"ffffffff");
        for bad in ["", "+1", "-1", "g", "123456789"] {
            assert_eq!(parse_hex(bad.as_bytes()), None, "{bad}");
        }
    }
}
