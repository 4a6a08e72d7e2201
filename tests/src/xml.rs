//! Reads the few things that tests need from S3's XML.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Texts of all elements named `name`, in order, wherever they are.
pub fn texts_of(xml: &[u8], name: &str) -> Vec<String> {
    let mut reader = Reader::from_reader(xml);
    let (mut found, mut inside) = (Vec::new(), None::<String>);
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) if tag.local_name().as_ref() == name => {
                inside = Some(String::new());
            }
            Ok(Event::Empty(tag)) if tag.local_name().as_ref() == name => {
                found.push(String::new());
            }
            Ok(Event::Text(text)) => {
                if let Some(value) = &mut inside {
                    value.push_str(&text);
                }
            }
            Ok(Event::GeneralRef(reference)) => {
                if let Some(value) = &mut inside {
                    value.push_str(&resolve(&reference));
                }
            }
            Ok(Event::End(tag)) if tag.local_name().as_ref() == name => {
                found.extend(inside.take());
            }
            Ok(Event::Eof) => return found,
            Err(error) => panic!("not XML: {error}: {}", String::from_utf8_lossy(xml)),
            Ok(_) => {}
        }
    }
}

/// The text of the first element named `name`.
pub fn text_of(xml: &[u8], name: &str) -> Option<String> {
    if xml.is_empty() {
        return None;
    }
    texts_of(xml, name).into_iter().next()
}

fn resolve(reference: &str) -> String {
    match reference {
        "amp" => "&".into(),
        "lt" => "<".into(),
        "gt" => ">".into(),
        "quot" => "\"".into(),
        "apos" => "'".into(),
        numeric => {
            let code = match numeric.strip_prefix("#x") {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => numeric.trim_start_matches('#').parse(),
            };
            let character = code.ok().and_then(char::from_u32);
            character
                .unwrap_or_else(|| panic!("unknown entity {numeric}"))
                .to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_texts_with_entities() {
        let xml = b"<a><Key>x&amp;y&#33;</Key><Key/><Key>z</Key></a>";
        assert_eq!(super::texts_of(xml, "Key"), ["x&y!", "", "z"]);
    }
}
