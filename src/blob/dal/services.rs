//! Which services are built in, and which options each knows.

use std::fmt;

use opendal::{Operator, OperatorRegistry, services};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::veil::Veil;
use crate::blob::BackendConfig;

/// Names every service that a feature of this crate builds in, and the type that OpenDAL reads its options into.
macro_rules! optional_services {
    ($($name:literal => $config:ident,)*) => {
        /// The features of this crate that build a service in; each has its service's name.
        const FEATURES: &[&str] = &[$($name),*];

        /// The names of its options, aliases included; `None` for a service that is not built in.
        fn known(service: &str) -> Option<&'static [&'static str]> {
            match service {
                "memory" => fields::<services::MemoryConfig>(),
                "s3" => fields::<services::S3Config>(),
                #[cfg(feature = "cos")]
                "cosn" => fields::<services::CosConfig>(),
                $(#[cfg(feature = $name)] $name => fields::<services::$config>(),)*
                _ => None,
            }
        }
    };
}

optional_services! {
    "aliyun-drive" => AliyunDriveConfig,
    "azblob" => AzblobConfig,
    "azdls" => AzdlsConfig,
    "azfile" => AzfileConfig,
    "b2" => B2Config,
    "cos" => CosConfig,
    "dropbox" => DropboxConfig,
    "ftp" => FtpConfig,
    "gcs" => GcsConfig,
    "gdrive" => GdriveConfig,
    "hdfs-native" => HdfsNativeConfig,
    "ipmfs" => IpmfsConfig,
    "koofr" => KoofrConfig,
    "obs" => ObsConfig,
    "onedrive" => OnedriveConfig,
    "oss" => OssConfig,
    "pcloud" => PcloudConfig,
    "seafile" => SeafileConfig,
    "sftp" => SftpConfig,
    "swift" => SwiftConfig,
    "tos" => TosConfig,
    "upyun" => UpyunConfig,
    "vercel-blob" => VercelBlobConfig,
    "webdav" => WebdavConfig,
    "webhdfs" => WebhdfsConfig,
    "yandex-disk" => YandexDiskConfig,
}

/// The operator for a configuration, without asking anything of the service. Otherwise what is wrong with it.
pub(super) fn operator(config: &BackendConfig) -> Result<Operator, String> {
    let service = config.service.as_str();
    let Some(options) = known(service) else {
        return Err(unknown(service));
    };
    // OpenDAL ignores what it does not know, so that a misspelt option would silently not apply.
    let odd = config
        .options
        .keys()
        .find(|key| !options.contains(&key.as_str()));
    if let Some(odd) = odd {
        let mut options = options.to_vec();
        options.sort_unstable();
        return Err(format!(
            "options: {service} has no option `{odd}`; it has {}",
            options.join(", ")
        ));
    }
    Operator::via_iter(service, config.options.clone())
        .map_err(|error| refused(config, options, &error))
}

/// Why OpenDAL makes no operator. Where it speaks of an option that is not set, that one is missing.
fn refused(config: &BackendConfig, options: &[&str], error: &opendal::Error) -> String {
    let source = std::error::Error::source(error);
    let source = source.map_or_else(String::new, |source| format!(": {source}"));
    let said = format!("{}{source}", error.message());
    let lower = said.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let missing = words.find(|word| {
        let value = config.options.get(*word);
        *word != "root" && options.contains(word) && value.is_none_or(String::is_empty)
    });
    if let Some(missing) = missing {
        return format!("options: missing option `{missing}`");
    }
    Veil::over(config).text(format_args!("options: {said}"))
}

fn unknown(service: &str) -> String {
    if FEATURES.contains(&service) {
        return format!("service: {service} is not built in: build with `--features {service}`");
    }
    let mut built_in: Vec<String> = OperatorRegistry::get().schemes().into_iter().collect();
    built_in.push(crate::blob::fs::SERVICE.to_owned());
    built_in.sort_unstable();
    format!(
        "service: there is no {service}; built in are {}",
        built_in.join(", ")
    )
}

/// The fields of a type, which tells them to whoever deserializes it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_every_service_built_in_are_known() {
        for service in OperatorRegistry::get().schemes() {
            let options = known(&service);
            assert!(
                options.is_some_and(|options| !options.is_empty()),
                "{service}"
            );
        }
    }

    #[test]
    fn every_service_refuses_an_unknown_option_by_name() {
        for service in OperatorRegistry::get().schemes() {
            let config = BackendConfig::new(&service, [("rooot", "/x")]);
            let refused = operator(&config).unwrap_err();
            assert!(
                refused.contains("`rooot`")
                    && refused.contains(&service)
                    && refused.contains("root"),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_unknown_service_is_refused_with_those_that_there_are() {
        let refused = operator(&BackendConfig::new("s4", [])).unwrap_err();
        for word in ["s4", "azblob", "fs", "memory", "s3", "webdav"] {
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn a_service_that_could_be_built_in_is_refused_with_its_feature() {
        let left_out = FEATURES.iter().find(|name| known(name).is_none());
        let Some(left_out) = left_out else {
            return;
        };
        let refused = operator(&BackendConfig::new(left_out, [])).unwrap_err();
        assert!(
            refused.contains(&format!("--features {left_out}")),
            "{refused}"
        );
    }

    #[test]
    fn what_a_service_needs_is_missed_without_asking_it() {
        for (service, needed) in [
            ("s3", "bucket"),
            ("webdav", "endpoint"),
            ("azblob", "container"),
        ] {
            let refused = operator(&BackendConfig::new(service, [])).unwrap_err();
            assert_eq!(refused, format!("options: missing option `{needed}`"));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_unseen() {
        let options = [
            ("bucket", "b"),
            ("region", "r"),
            ("allow_anonymous", "hush"),
        ];
        let refused = operator(&BackendConfig::new("s3", options)).unwrap_err();
        assert!(
            refused.starts_with("options: ") && !refused.contains("hush"),
            "{refused}"
        );
        assert!(!refused.contains("context"), "{refused}");
    }
}
