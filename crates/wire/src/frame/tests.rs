//! Frames survive any cutting, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    head: 64,
    data: 4096,
};

fn read(body: &[u8], declared: u64, cut: usize) -> Result<Frame, FrameError> {
    let mut reader = FrameReader::new(declared, LIMITS)?;
    for piece in body.chunks(cut.max(1)) {
        reader.push(Bytes::copy_from_slice(piece))?;
    }
    reader.finish()
}

fn body(head: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = vec![FRAME_VERSION];
    body.extend_from_slice(&(head.len() as u32).to_le_bytes());
    body.extend_from_slice(head);
    body.extend_from_slice(data);
    body
}

#[test]
fn lies_about_lengths_are_refused() {
    let whole = body(b"head", b"data");
    let cases: [(&str, Vec<u8>, u64); 8] = [
        ("nothing", vec![], 0),
        ("prefix cut", whole[..3].to_vec(), 3),
        ("ends early", whole[..9].to_vec(), whole.len() as u64),
        ("goes on", whole.clone(), whole.len() as u64 - 1),
        ("head beyond body", body(&[0; 64], b"")[..20].to_vec(), 20),
        ("head beyond limit", body(&[0; 65], b""), 70),
        ("data beyond limit", body(b"h", &[0; 4097]), 6 + 4097),
        ("declared beyond all", whole.clone(), u64::MAX),
    ];
    for (name, bytes, declared) in cases {
        for cut in [1, 4, 5, 6, 1 << 20] {
            assert!(read(&bytes, declared, cut).is_err(), "{name}, cut {cut}");
        }
    }
    let mut other = whole;
    other[0] = 2;
    assert_eq!(read(&other, 13, 100), Err(FrameError::Version(2)));
}

#[test]
fn data_that_arrive_in_one_piece_are_not_copied() {
    let mut reader = FrameReader::new(5 + 1 + 1000, LIMITS).unwrap();
    let sent = Bytes::from(body(b"h", &[7; 1000]));
    let at = sent.slice(6..).as_ptr();
    reader.push(sent).unwrap();
    assert_eq!(reader.head(), Some(&b"h"[..]));
    assert_eq!(reader.data_len(), Some(1000));
    assert_eq!(reader.finish().unwrap().data.as_ptr(), at);
}

#[test]
fn a_head_with_bytes_behind_it_is_refused() {
    let bytes = encode_head(&(1u8, 2u32));
    assert_eq!(decode_head::<(u8, u32)>(&bytes[PREFIX_BYTES..]), Ok((1, 2)));
    assert_eq!(
        decode_head::<u8>(&bytes[PREFIX_BYTES..]),
        Err(FrameError::Head)
    );
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same(
        head in prop::collection::vec(any::<u8>(), 0..64),
        data in prop::collection::vec(any::<u8>(), 0..4096),
        cut in 1usize..5000,
    ) {
        let body = body(&head, &data);
        let frame = read(&body, body.len() as u64, cut).unwrap();
        prop_assert_eq!(&frame.head[..], &head[..]);
        prop_assert_eq!(&frame.data[..], &data[..]);
    }

    #[test]
    fn noise_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        versioned in any::<bool>(),
        declared in prop_oneof![0u64..400, any::<u64>()],
        cut in 1usize..300,
    ) {
        let mut noise = noise;
        if let (true, Some(first)) = (versioned, noise.first_mut()) {
            *first = FRAME_VERSION;
        }
        let _ = read(&noise, declared, cut);
        let _ = read(&noise, noise.len() as u64, cut);
    }
}
