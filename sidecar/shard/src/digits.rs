//! Addresses and hexadecimal numbers as text, without the formatting machinery: it would be a tenth of a message's time.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Each octet in decimal with a dot behind it, and the length of that.
const OCTETS: [([u8; 4], usize); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut value = 0;
    while value < octets.len() {
        let digits = [b'0' + (value / 100) as u8, b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
        let len = if value < 10 {
            1
        } else if value < 100 {
            2
        } else {
            3
        };
        let mut at = 0;
        while at < len {
            octets[value].0[at] = digits[3 - len + at];
            at += 1;
        }
        octets[value].1 = len + 1;
        value += 1;
    }
    octets
};

/// Append an address as Via's `received` has it, IPv6 without brackets.
pub(super) fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => address_v4(out, ip),
        IpAddr::V6(ip) => write!(out, "{ip}").expect("writing to a Vec cannot fail"),
    }
}

fn address_v4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    let mut text = [0; 16];
    let mut len = 0;
    for octet in ip.octets() {
        let (digits, digits_len) = OCTETS[usize::from(octet)];
        text[len..len + 4].copy_from_slice(&digits);
        len += digits_len;
    }
    out.extend_from_slice(&text[..len - 1]);
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

/// The number that exactly these hexadecimal digits are, of any case and at most eight.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_std_writes_them() {
        for ip in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "2001:db8::1"] {
            let mut out = Vec::new();
            address(&mut out, ip.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), ip);
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
