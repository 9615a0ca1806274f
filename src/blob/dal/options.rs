//! Which options a service knows.

use std::fmt;

use opendal::services::{MemoryConfig, S3Config};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The names, aliases included; `None` for a service whose configuration type is not built in.
pub(super) fn known(service: &str) -> Option<&'static [&'static str]> {
    match service {
        "memory" => fields::<MemoryConfig>(),
        "s3" => fields::<S3Config>(),
        _ => None,
    }
}

/// OpenDAL ignores what it does not know, so a misspelt option would silently not apply. The type itself
/// tells its fields to whoever deserializes it.
fn fields<T: for<'de> Deserialize<'de>>() -> Option<&'static [&'static str]> {
    let mut seen = None;
    let _ = T::deserialize(Fields(&mut seen));
    seen
}

struct Fields<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Seen;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Seen> {
        *self.0 = Some(fields);
        Err(Seen)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Seen> {
        Err(Seen::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Ends the deserialization; there is nothing to say.
#[derive(Debug)]
struct Seen;

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields seen")
    }
}

impl std::error::Error for Seen {}

impl serde::de::Error for Seen {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}
