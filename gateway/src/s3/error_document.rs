//! Completing the error documents of s3s with what S3 puts into them.
//!
//! s3s writes Code and Message; Resource, RequestId and HostId are added
//! here, and Region where a client needs it to sign anew.

use http::{HeaderValue, Response, header};
use s3s::Body;

const END: &[u8] = b"</Error>";

/// Adds the missing elements to an error document; anything else, an empty
/// answer to HEAD say, stays as it is.
pub(crate) fn complete_error(
    response: Response<Body>,
    resource: &str,
    request_id: &str,
    host_id: &str,
    region: &str,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Some(document) = body.bytes() else {
        return Response::from_parts(parts, body);
    };
    let Some(head) = document.strip_suffix(END) else {
        return Response::from_parts(parts, body);
    };
    let mut text = Vec::with_capacity(document.len() + resource.len() + 160);
    text.extend_from_slice(head);
    if contains(head, b"<Code>AuthorizationHeaderMalformed</Code>") {
        element(&mut text, "Region", region);
    }
    element(&mut text, "Resource", resource);
    element(&mut text, "RequestId", request_id);
    element(&mut text, "HostId", host_id);
    text.extend_from_slice(END);
    parts
        .headers
        .insert(header::CONTENT_LENGTH, text.len().into());
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    Response::from_parts(parts, Body::from(text))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn element(text: &mut Vec<u8>, name: &str, value: &str) {
    text.extend_from_slice(format!("<{name}>").as_bytes());
    for c in value.chars() {
        match c {
            '<' => text.extend_from_slice(b"&lt;"),
            '>' => text.extend_from_slice(b"&gt;"),
            '&' => text.extend_from_slice(b"&amp;"),
            '"' => text.extend_from_slice(b"&quot;"),
            '\'' => text.extend_from_slice(b"&apos;"),
            c if c.is_control() => text.push(b'?'),
            c => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    text.extend_from_slice(format!("</{name}>").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(document: &'static str) -> String {
        let response = Response::new(Body::from(document.to_owned()));
        let response = complete_error(response, "/b/<k>&", "ID", "HOST", "us-east-1");
        let bytes = response.body().bytes().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn error_documents_are_completed() {
        assert_eq!(
            completed("<Error><Code>NoSuchKey</Code></Error>"),
            "<Error><Code>NoSuchKey</Code><Resource>/b/&lt;k&gt;&amp;</Resource>\
             <RequestId>ID</RequestId><HostId>HOST</HostId></Error>"
        );
        let malformed = completed("<Error><Code>AuthorizationHeaderMalformed</Code></Error>");
        assert!(malformed.contains("<Region>us-east-1</Region>"));
        assert_eq!(completed(""), "");
    }
}
