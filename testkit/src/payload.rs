//! Numbered payloads that can be checked.
//!
//! ```text
//! bytes 0..8    the stream: all that one sender sends
//! bytes 8..16   the number of the message in its stream
//! bytes 16..24  a checksum over everything
//! the rest      the lowest byte of the number
//! ```

/// The length of the shortest payload, in bytes.
pub const HEAD_BYTES: usize = 24;

fn sum(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    hash
}

/// Writes the payload of a message. Its length is at most `most` bytes, depends on the number, and is never less than
/// [`HEAD_BYTES`].
pub fn write(payload: &mut Vec<u8>, stream: u64, number: u64, most: usize) {
    let span = most.saturating_sub(HEAD_BYTES);
    let length = if span == 0 { HEAD_BYTES } else { HEAD_BYTES + (number as usize).wrapping_mul(7919) % (span + 1) };
    write_exactly(payload, stream, number, length);
}

/// Writes the payload of a message, of this length in bytes: at least [`HEAD_BYTES`].
pub fn write_exactly(payload: &mut Vec<u8>, stream: u64, number: u64, length: usize) {
    payload.clear();
    payload.extend_from_slice(&stream.to_le_bytes());
    payload.extend_from_slice(&number.to_le_bytes());
    payload.extend_from_slice(&[0; 8]);
    payload.resize(length, number as u8);
    let sum = sum(stream ^ number.rotate_left(32), &payload[HEAD_BYTES..]);
    payload[16..24].copy_from_slice(&sum.to_le_bytes());
}

/// The stream and the number of a payload; `None` if it is not exactly what was written.
pub fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let (head, rest) = payload.split_at_checked(HEAD_BYTES)?;
    let word = |n: usize| u64::from_le_bytes(head[n..n + 8].try_into().expect("eight bytes"));
    let (stream, number) = (word(0), word(8));
    (word(16) == sum(stream ^ number.rotate_left(32), rest)).then_some((stream, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_back_and_every_flipped_bit_is_detected() {
        let mut payload = Vec::new();
        for number in [0, 1, 77, 1 << 40] {
            write(&mut payload, 5, number, 100);
            assert_eq!(read(&payload), Some((5, number)));
            for bit in 0..payload.len() * 8 {
                payload[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&payload), None, "bit {bit}");
                payload[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert_eq!(read(&payload[..20]), None);
        payload.push(0);
        assert_eq!(read(&payload), None);
    }
}
