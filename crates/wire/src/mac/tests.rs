//! Every fact of a message moves its code.

use super::*;

fn secret() -> Secret {
    Secret::from_text("an-example-secret-of-enough-bytes-0123").unwrap()
}

fn stamp() -> Stamp {
    Stamp {
        boot: (7 << 64) | 9,
        session: 2,
        counter: 3,
        time_ms: 1_790_000_000_000,
    }
}

const REQUEST: RequestFacts<'static> = RequestFacts {
    method: "POST",
    target: "/v1/disks/00/read?x=1",
    body_len: 100,
    head: b"head",
};

#[test]
fn each_fact_of_a_request_is_covered() {
    let secret = secret();
    let code = secret.request_code(&stamp(), &REQUEST);
    assert!(code == secret.request_code(&stamp(), &REQUEST));
    let requests = [
        RequestFacts {
            method: "GET",
            ..REQUEST
        },
        RequestFacts {
            target: "/v1/disks/01/read?x=1",
            ..REQUEST
        },
        RequestFacts {
            target: "/v1/disks/00/read",
            ..REQUEST
        },
        RequestFacts {
            body_len: 101,
            ..REQUEST
        },
        RequestFacts {
            head: b"heaD",
            ..REQUEST
        },
        // Bytes moved over the border of two fields.
        RequestFacts {
            method: "POST/",
            target: "v1/disks/00/read?x=1",
            ..REQUEST
        },
    ];
    for other in requests {
        assert!(code != secret.request_code(&stamp(), &other), "{other:?}");
    }
    let stamps = [
        Stamp { boot: 1, ..stamp() },
        Stamp {
            session: 1,
            ..stamp()
        },
        Stamp {
            counter: 1,
            ..stamp()
        },
        Stamp {
            time_ms: 1,
            ..stamp()
        },
    ];
    for other in stamps {
        assert!(code != secret.request_code(&other, &REQUEST), "{other:?}");
    }
    let other = Secret::from_text("An-example-secret-of-enough-bytes-0123").unwrap();
    assert!(code != other.request_code(&stamp(), &REQUEST));
}

#[test]
fn each_fact_of_an_answer_is_covered() {
    let secret = secret();
    let answer = AnswerFacts {
        status: 200,
        body_len: 9,
        head: b"ok",
    };
    let code = secret.answer_code(&stamp(), &answer);
    for other in [
        AnswerFacts {
            status: 503,
            ..answer
        },
        AnswerFacts {
            body_len: 8,
            ..answer
        },
        AnswerFacts {
            head: b"no",
            ..answer
        },
    ] {
        assert!(code != secret.answer_code(&stamp(), &other), "{other:?}");
    }
    let later = Stamp {
        counter: 4,
        ..stamp()
    };
    assert!(code != secret.answer_code(&later, &answer));
}

#[test]
fn header_round_trips_and_refuses_others() {
    let code = secret().request_code(&stamp(), &REQUEST);
    let text = stamp().header(&code);
    let (parsed, parsed_code) = Stamp::parse_header(&text).unwrap();
    assert_eq!(parsed, stamp());
    assert!(parsed_code == code);
    let short = &text[..text.len() - 1];
    let long = format!("{text}0");
    for bad in ["", ".", "zz.zz", short, &long, &text.replace('.', "")] {
        assert!(Stamp::parse_header(bad).is_err(), "{bad}");
    }
}

#[test]
fn weak_secrets_are_refused() {
    assert_eq!(Secret::from_text("").unwrap_err(), WeakSecret::Length(0));
    let short = "0123456789abcdef0123456789abcde";
    assert_eq!(
        Secret::from_text(&format!("  {short}\n")).unwrap_err(),
        WeakSecret::Length(31)
    );
    assert_eq!(
        Secret::new(&[b'a'; 64]).unwrap_err(),
        WeakSecret::Uniform(1)
    );
    assert!(Secret::new(&[7; 4096]).is_err());
}

#[test]
fn a_secret_never_shows_itself() {
    assert_eq!(format!("{:?}", secret()), "Secret(hidden)");
}

#[test]
fn the_code_is_hmac_sha_256() {
    // RFC 4231, test case 6: a key longer than a block, data without our label.
    let secret = Secret {
        keyed: Hmac::new_from_slice(&[0xaa; 131]).unwrap(),
    };
    let mut mac = secret.keyed.clone();
    mac.update(b"Test Using Larger Than Block-Size Key - Hash Key First");
    let code = Code(mac.finalize().into_bytes().into());
    assert_eq!(
        code.to_string(),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}
