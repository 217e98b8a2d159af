//! Protocol Buffers, written field by field: two kinds of messages that are never read need thirty
//! lines, a general encoder six crates more.

/// A Protocol Buffers message in the making: fields in the order in which they are added, each a key
/// (number · 8 + wire type) and its value (<https://protobuf.dev/programming-guides/encoding>).
#[derive(Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// Seven bits a byte, the lowest first, the eighth set but in the last.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer or enumeration that is not negative, wire type 0.
    pub fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// Wire type 1.
    #[cfg(any(feature = "paper", test))]
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Wire type 5.
    #[cfg(any(feature = "paper", test))]
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes, text or another message, wire type 2.
    pub fn part(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    /// The examples of the format's documentation.
    #[test]
    fn fields_are_encoded_as_documented() {
        assert_eq!(Message::default().int(1, 150).0, [0x08, 0x96, 0x01]);
        let text = Message::default().part(2, "testing").0;
        assert_eq!(text, [&[0x12, 0x07], &b"testing"[..]].concat());
        let nested = Message::default().part(3, Message::default().int(1, 150)).0;
        assert_eq!(nested, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().int(20, 0).0, [0xa0, 0x01, 0x00]);
        assert_eq!(Message::default().float(2, 1.0).0, [0x15, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::default().double(1, 1.0).0, [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }
}
