//! The documents of version 0. Names, order and units are frozen, and tested byte for byte.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Paths to be uploaded.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct LinkUpload {
    /// 1 to 50 names of files; of a path its last part counts.
    #[serde(rename = "filePath")]
    pub(super) file_path: Vec<String>,
    /// Seconds, at most 604800; 0 or absent is a day.
    #[serde(default)]
    pub(super) expire: i64,
}

/// Links for one path.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct UploadLinks {
    /// The number that the file will have.
    pub(super) uid: String,
    pub(super) url: UploadUrls,
    pub(super) path: String,
}

/// Where to send a file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct UploadUrls {
    /// All at once.
    pub(super) single: String,
    pub(super) multi: MultiUrls,
}

/// Where to send a file in parts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct MultiUrls {
    /// Each part.
    pub(super) upload: String,
    /// When all parts are sent.
    pub(super) merge: String,
}

/// Files to be downloaded.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct LinkDownload {
    /// At most 200; those that are not known are left out of the answer.
    pub(super) uid: Vec<String>,
    /// Seconds, at most 604800; 0 or absent is a day.
    #[serde(default)]
    pub(super) expire: i64,
}

/// A link for one file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct DownloadLink {
    pub(super) uid: String,
    pub(super) url: String,
    pub(super) meta: Meta,
}

/// What is known of a file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Meta {
    /// The name it came under.
    #[serde(rename = "srcName")]
    pub(super) src_name: String,
    /// Its key.
    #[serde(rename = "dstName")]
    pub(super) dst_name: String,
    /// Not measured: 0.
    pub(super) height: i64,
    /// Not measured: 0.
    pub(super) width: i64,
    /// Of a file that came in parts as its client told it.
    pub(super) md5: String,
    /// Bytes, in decimal.
    pub(super) size: String,
}

/// Files that may be here already.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Resume {
    /// At most 50.
    pub(super) data: Vec<ResumeItem>,
}

/// One file that may be here already.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ResumeItem {
    pub(super) md5: String,
    pub(super) path: String,
}

/// Whether it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Resumed {
    pub(super) md5: String,
    /// The number of the file; empty: it is not here, upload it.
    pub(super) uid: String,
}

/// What a signed link says.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct LinkParameters {
    pub(super) uid: String,
    /// When the link was made, `YYYY-MM-DDTHH:MM:SSZ`.
    pub(super) date: String,
    /// For how many seconds it lives.
    pub(super) expire: u32,
    pub(super) signature: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::to_string;

    #[test]
    fn shapes_are_frozen() {
        let link = UploadLinks {
            uid: "7".to_owned(),
            url: UploadUrls {
                single: "/s".to_owned(),
                multi: MultiUrls {
                    upload: "/u".to_owned(),
                    merge: "/m".to_owned(),
                },
            },
            path: "a/b.txt".to_owned(),
        };
        assert_eq!(
            to_string(&[link]).unwrap(),
            r#"[{"uid":"7","url":{"single":"/s","multi":{"upload":"/u","merge":"/m"}},"path":"a/b.txt"}]"#
        );
        let link = DownloadLink {
            uid: "7".to_owned(),
            url: "/d".to_owned(),
            meta: Meta {
                src_name: "b.txt".to_owned(),
                dst_name: "7.txt".to_owned(),
                height: 0,
                width: 0,
                md5: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
                size: "0".to_owned(),
            },
        };
        assert_eq!(
            to_string(&[link]).unwrap(),
            r#"[{"uid":"7","url":"/d","meta":{"srcName":"b.txt","dstName":"7.txt","height":0,"width":0,"md5":"d41d8cd98f00b204e9800998ecf8427e","size":"0"}}]"#
        );
        assert_eq!(to_string(&None::<Vec<DownloadLink>>).unwrap(), "null");
        let resumed = Resumed {
            md5: "x".to_owned(),
            uid: String::new(),
        };
        assert_eq!(to_string(&[resumed]).unwrap(), r#"[{"md5":"x","uid":""}]"#);
    }

    #[test]
    fn documents_may_hold_more_than_is_known() {
        let text = r#"{"filePath":["a"],"expire":60,"other":[1]}"#;
        let wanted: LinkUpload = serde_json::from_str(text).unwrap();
        assert_eq!((wanted.file_path.len(), wanted.expire), (1, 60));
        let text = r#"{"uid":["7"]}"#;
        let wanted: LinkDownload = serde_json::from_str(text).unwrap();
        assert_eq!((wanted.uid.len(), wanted.expire), (1, 0));
    }
}
