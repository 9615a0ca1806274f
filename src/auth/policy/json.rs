//! JSON as policies have it: no name twice in one object, no more nesting than a policy can have.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of a policy: document, statements, statement, condition, operator, key, values.
const DEPTH_MAX: usize = 8;

/// One value. Objects keep the order in which they were written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a document; `None` when it is none, repeats a name, or is nested too deep.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut document = serde_json::Deserializer::from_str(text);
        let value = Seed(DEPTH_MAX).deserialize(&mut document).ok()?;
        document.end().ok()?;
        Some(value)
    }

    /// The texts of a text or a list of texts; numbers and booleans count as their texts.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::List(values) => values.iter().map(Self::scalar).collect(),
            scalar => Some(vec![scalar.scalar()?]),
        }
    }

    fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text.clone()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }
}

/// Reads a value that may nest this much deeper.
struct Seed(usize);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed {
    fn below<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(depth) => Ok(Self(depth)),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.below()?)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(serde::de::Error::custom("a name twice"));
            }
            let value = map.next_value_seed(self.below()?)?;
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_twice_and_deep_nesting_are_refused() {
        assert!(Json::read(r#"{"a":1,"b":[true,null,"x",1.5]}"#).is_some());
        assert_eq!(Json::read(r#"{"a":1,"a":2}"#), None);
        assert_eq!(Json::read("{} x"), None);
        assert_eq!(
            Json::read(&format!("{}{}", "[".repeat(200), "]".repeat(200))),
            None
        );
        assert_eq!(Json::read(&"[".repeat(100_000)), None);
    }
}
