//! Answers whole and in bits, what is none, and when a connection is used again.

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const EXPECTED: Expected = Expected {
    most: 1 << 20,
    usual: 1000,
};

/// A connection whose other end reads `request` bytes, then says `answer`
/// piece by piece, and closes if `closes`.
async fn connected(
    request: usize,
    answer: Vec<Vec<u8>>,
    closes: bool,
) -> (Connection, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = vec![0; request];
        stream.read_exact(&mut read).await.unwrap();
        for piece in answer {
            stream.write_all(&piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        if !closes {
            // Until the connection is dropped.
            let _end = stream.read(&mut [0]).await;
        }
        read
    });
    let stream = TcpStream::connect(address).await.unwrap();
    (Connection::new(stream), other)
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = head.replace('\n', "\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn pieces(lens: &[usize]) -> VecDeque<Bytes> {
    lens.iter().map(|len| Bytes::from(vec![7; *len])).collect()
}

#[tokio::test]
async fn a_request_of_many_pieces_and_an_answer_in_bits() {
    let body: Vec<u8> = (0..100_000_u32).map(|i| (i / 7) as u8).collect();
    let head = format!(
        "HTTP/1.1 207 X\nX-Shardgate-Mac: ab\nContent-Length: {}\n\n",
        body.len()
    );
    let whole = answer(&head, &body);
    let bits = whole.chunks(333).map(<[u8]>::to_vec).collect();
    let lens = [10, 1, 300_000, 0, 5, 70_000]
        .repeat(5)
        .into_iter()
        .filter(|len| *len > 0);
    let lens: Vec<usize> = lens.collect();
    let (mut connection, other) = connected(lens.iter().sum(), bits, false).await;
    let received = connection.exchange(pieces(&lens), EXPECTED).await.unwrap();
    assert_eq!(
        (received.status, received.mac.as_deref()),
        (207, Some("ab"))
    );
    assert!(received.body == body);
    assert!(connection.is_usable(Duration::from_secs(60)));
    assert!(!connection.is_usable(Duration::ZERO));
    drop(connection);
    assert!(other.await.unwrap().iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn an_answer_holds_no_more_memory_than_its_length() {
    let body = vec![1; 64 * 1024];
    let head = format!("HTTP/1.1 200 OK\ncontent-length: {}\n\n", body.len());
    let expected = Expected {
        usual: body.len(),
        ..EXPECTED
    };
    let (mut connection, _other) = connected(1, vec![answer(&head, &body)], false).await;
    let received = connection.exchange(pieces(&[1]), expected).await.unwrap();
    let memory = received.body.try_into_mut().unwrap().capacity();
    assert!(memory <= body.len() + USUAL_HEAD_BYTES, "{memory}");
}

#[tokio::test]
async fn what_is_no_plain_answer_is_refused() {
    for (head, body) in [
        ("HTTP/1.1 200 OK\n\n", "abc"),
        (
            "HTTP/1.1 200 OK\ncontent-length: 3\ncontent-length: 3\n\n",
            "abc",
        ),
        ("HTTP/1.1 200 OK\ncontent-length: +3\n\n", "abc"),
        (
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncontent-length: 3\n\n",
            "abc",
        ),
        ("HTTP/1.1 200 OK\ncontent-length: 1048577\n\n", "abc"),
        ("HTTQ/1.1 200 OK\ncontent-length: 3\n\n", "abc"),
        ("HTTP/1.1 200 OK\ncontent-length: 4\n\n", "abc"),
        ("HTTP/1.1 100 Continue\n\n", ""),
    ] {
        let (mut connection, _other) =
            connected(1, vec![answer(head, body.as_bytes())], true).await;
        let received = connection.exchange(pieces(&[1]), EXPECTED).await;
        assert!(received.is_err(), "{head}");
        assert!(!connection.is_usable(Duration::from_secs(60)), "{head}");
    }
    let long = "x".repeat(2 * MAX_HEAD_BYTES);
    let head = format!("HTTP/1.1 200 OK\nx: {long}\ncontent-length: 0\n\n");
    let (mut connection, _other) = connected(1, vec![answer(&head, b"")], true).await;
    assert!(connection.exchange(pieces(&[1]), EXPECTED).await.is_err());
}

#[tokio::test]
async fn a_connection_that_is_not_clean_is_not_used_again() {
    for (head, body, closes) in [
        ("HTTP/1.1 200 OK\ncontent-length: 3\n\n", "abcd", false),
        (
            "HTTP/1.1 200 OK\nConnection: close\ncontent-length: 3\n\n",
            "abc",
            false,
        ),
        ("HTTP/1.0 200 OK\ncontent-length: 3\n\n", "abc", false),
        ("HTTP/1.1 200 OK\ncontent-length: 3\n\n", "abc", true),
    ] {
        let (mut connection, other) =
            connected(1, vec![answer(head, body.as_bytes())], closes).await;
        let received = connection.exchange(pieces(&[1]), EXPECTED).await.unwrap();
        assert_eq!(&received.body[..], b"abc");
        if closes {
            other.await.unwrap();
            // The kernel has the end by now; the runtime hears of it here.
            connection.stream.readable().await.unwrap();
        }
        assert!(
            !connection.is_usable(Duration::from_secs(60)),
            "{head}{body}"
        );
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_heard() {
    let refusal = answer("HTTP/1.1 413 X\ncontent-length: 2\n\n", b"no");
    let (mut connection, _other) = connected(1, vec![refusal], true).await;
    // More than the kernel takes.
    let received = connection.exchange(pieces(&[32 << 20]), EXPECTED).await;
    match received {
        Ok(received) => assert_eq!(received.status, 413),
        // The other end's reset may come before its answer was read.
        Err(NoAnswer::Broken(_)) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(!connection.is_usable(Duration::from_secs(60)));
}
