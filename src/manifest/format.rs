//! The bytes of a manifest's objects.
//!
//! ```text
//!   object    01  salt (32 bytes, random)  frame ...
//!   frame     length of what follows (u32, big-endian)  AES-256-GCM of the text, tag included
//!             key: HMAC-SHA-256 of the salt under the key of manifests; nonce: the frame's place in the object;
//!             associated data: its kind
//!   kinds     0 head     seq, part, previous (NULL for a snapshot), time of writing; then of each table: its
//!                        number, how many columns name a group, how many there are, and their names
//!             1 groups   table number (1 byte), how many rows (u32), the group's key, the rest of each row
//!             2 end      how many groups the object has, whether it is the manifest's last
//! ```
//!
//! Values are stored as [`catalog`](crate::meta::catalog) says. A manifest tells its own columns, so that one
//! written before a column was added is read all the same. A frame that is changed, moved, left out or taken from
//! another object does not open, and an object without its end is not whole.

use std::collections::HashMap;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use bytes::{Buf, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::blob::Reader;
use crate::keys::{KEY_BYTES, MasterKey, fill};
use crate::meta::catalog::{self, Group, TABLES, Table, TableId, Value};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};

const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
/// Bytes of the longest frame that is read: far above what is written, far below what would hurt.
const FRAME_MAX: usize = 64 << 20;

/// What manifests are encrypted under.
#[derive(Clone)]
pub(super) struct ManifestKey(Zeroizing<[u8; KEY_BYTES]>);

impl ManifestKey {
    pub(super) fn of(master_key: &MasterKey) -> Self {
        Self(master_key.derive(b"osproxy manifests"))
    }

    fn object(&self, salt: &[u8; SALT_BYTES]) -> Aes256Gcm {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice())
            .expect("HMAC takes keys of any length");
        mac.update(salt);
        let key: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(mac.finalize().into_bytes().into());
        Aes256Gcm::new((&*key).into())
    }
}

/// What kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Head = 0,
    Groups = 1,
    End = 2,
}

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The manifest it is of; they are applied in this order.
    pub(super) seq: i64,
    /// Its place in the manifest.
    pub(super) part: i64,
    /// The manifest that this one follows; `None`: it is a snapshot and needs no other.
    pub(super) previous: Option<i64>,
    /// When it was claimed: it holds all that was committed before.
    pub(super) written: Millis,
}

/// Encrypts one object from its first byte to its last.
pub(super) struct Encoder {
    cipher: Aes256Gcm,
    index: u64,
}

fn nonce(index: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::from(nonce)
}

impl Encoder {
    /// Begins an object; returns its first bytes too.
    pub(super) fn begin(key: &ManifestKey, head: &Head) -> Result<(Self, Vec<u8>), Fault> {
        let mut salt = [0; SALT_BYTES];
        fill(&mut salt)?;
        let mut encoder = Self {
            cipher: key.object(&salt),
            index: 0,
        };
        let mut text = Vec::with_capacity(4096);
        let mut put = |value: Value| value.encode(&mut text);
        for number in [head.seq, head.part] {
            put(Value::Int(number));
        }
        put(head.previous.map_or(Value::Null, Value::Int));
        put(Value::Int(head.written));
        for table in TABLES {
            put(Value::Int(table.id.0.into()));
            put(Value::Int(table.group as i64));
            put(Value::Int(table.columns.len() as i64));
            for (name, _) in table.columns {
                put(Value::Text((*name).to_owned()));
            }
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&salt);
        bytes.extend(encoder.frame(Frame::Head, &text)?);
        Ok((encoder, bytes))
    }

    /// The bytes of groups that [`encode_group`] wrote one after the other.
    pub(super) fn groups(&mut self, text: &[u8]) -> Result<Vec<u8>, Fault> {
        self.frame(Frame::Groups, text)
    }

    /// The last bytes of an object that has so many groups.
    pub(super) fn end(mut self, groups: u64, is_last: bool) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        Value::Int(groups as i64).encode(&mut text);
        Value::Int(is_last.into()).encode(&mut text);
        self.frame(Frame::End, &text)
    }

    fn frame(&mut self, kind: Frame, text: &[u8]) -> Result<Vec<u8>, Fault> {
        let payload = Payload {
            msg: text,
            aad: &[kind as u8],
        };
        let sealed = self
            .cipher
            .encrypt(&nonce(self.index), payload)
            .map_err(|_| Fault::new(Kind::Internal, "seal manifest"))?;
        self.index += 1;
        let mut bytes = (sealed.len() as u32).to_be_bytes().to_vec();
        bytes.extend(sealed);
        Ok(bytes)
    }
}

/// Appends the stored form of a group.
pub(super) fn encode_group(table: &Table, group: &Group, into: &mut Vec<u8>) {
    into.push(table.id.0);
    into.extend_from_slice(&(group.rows.len() as u32).to_be_bytes());
    for value in group.key.iter().chain(group.rows.iter().flatten()) {
        value.encode(into);
    }
}

/// Why an object cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Its head does not open: another master key wrote it, or it is damaged.
    NotOurs,
    /// It opens and is not whole, or is not there.
    Broken(String),
    /// A newer osproxy wrote it.
    Newer(String),
    /// The backend did not answer: nothing is known about the object.
    Fault(Fault),
}

impl From<Fault> for Unreadable {
    fn from(fault: Fault) -> Self {
        match fault.kind() {
            Kind::NotFound => Self::Broken("it is not there".to_owned()),
            Kind::Corrupt => Self::Broken(fault.to_string()),
            _ => Self::Fault(fault),
        }
    }
}

/// How the columns of a table in a manifest are those of ours.
struct Columns {
    table: &'static Table,
    /// How many there are in the manifest, beside the key.
    width: usize,
    /// Where each of ours stands among them.
    places: Vec<Option<usize>>,
}

/// Decrypts one object from its first byte to its last.
pub(super) struct Decoder {
    reader: Reader,
    buffer: BytesMut,
    cipher: Aes256Gcm,
    index: u64,
    tables: HashMap<u8, Columns>,
    groups: u64,
    /// Set at the end: whether the object is the manifest's last.
    is_last: Option<bool>,
}

impl Decoder {
    /// Opens an object, from its first byte.
    pub(super) async fn open(
        key: &ManifestKey,
        reader: Reader,
    ) -> Result<(Self, Head), Unreadable> {
        let mut decoder = Self {
            reader,
            buffer: BytesMut::new(),
            cipher: key.object(&[0; SALT_BYTES]),
            index: 0,
            tables: HashMap::new(),
            groups: 0,
            is_last: None,
        };
        if !decoder.fill(1 + SALT_BYTES).await? {
            return Err(Unreadable::NotOurs);
        }
        if decoder.buffer[0] != VERSION {
            return Err(Unreadable::NotOurs);
        }
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&decoder.buffer[1..=SALT_BYTES]);
        decoder.buffer.advance(1 + SALT_BYTES);
        decoder.cipher = key.object(&salt);
        let text = match decoder.frame(&[Frame::Head]).await {
            Ok((_, text)) => text,
            Err(Unreadable::Fault(fault)) => return Err(Unreadable::Fault(fault)),
            Err(_) => return Err(Unreadable::NotOurs),
        };
        let head = decoder.head(&text)?;
        Ok((decoder, head))
    }

    fn head(&mut self, mut text: &[u8]) -> Result<Head, Unreadable> {
        let odd = || Unreadable::Broken("its head is of another form".to_owned());
        let next = |text: &mut &[u8]| Value::decode(text).ok_or_else(odd);
        let int = |text: &mut &[u8]| next(text).and_then(|value| value.int().ok_or_else(odd));
        let (seq, part) = (int(&mut text)?, int(&mut text)?);
        let previous = Value::decode(&mut text).ok_or_else(odd)?.int();
        let written = int(&mut text)?;
        while !text.is_empty() {
            let (id, group, count) = (int(&mut text)?, int(&mut text)?, int(&mut text)?);
            let mut names = Vec::new();
            for _ in 0..count {
                match Value::decode(&mut text) {
                    Some(Value::Text(name)) => names.push(name),
                    _ => return Err(odd()),
                }
            }
            let table = u8::try_from(id)
                .ok()
                .and_then(|id| catalog::table(TableId(id)));
            let newer = || {
                Unreadable::Newer(format!(
                    "it was written by a newer osproxy (table {id}: {})",
                    names.join(", ")
                ))
            };
            let table = table.ok_or_else(newer)?;
            let ours = |name: &String| table.columns.iter().any(|(column, _)| column == name);
            if group != table.group as i64 || !names.iter().all(ours) {
                return Err(newer());
            }
            let key_matches = names
                .iter()
                .zip(&table.columns[..table.group])
                .all(|(name, (column, _))| name == column);
            if names.len() < table.group || !key_matches {
                return Err(newer());
            }
            let rest = &names[table.group..];
            let place =
                |(column, _): &(&str, catalog::Type)| rest.iter().position(|name| name == column);
            self.tables.insert(
                table.id.0,
                Columns {
                    table,
                    width: rest.len(),
                    places: table.columns[table.group..].iter().map(place).collect(),
                },
            );
        }
        Ok(Head {
            seq,
            part,
            previous,
            written,
        })
    }

    /// The next groups, in the order in which they were written; `None` after the last of a whole object.
    pub(super) async fn next(
        &mut self,
    ) -> Result<Option<Vec<(&'static Table, Group)>>, Unreadable> {
        if self.is_last.is_some() {
            return Ok(None);
        }
        let (kind, text) = self.frame(&[Frame::Groups, Frame::End]).await?;
        let odd = || Unreadable::Broken("what it holds is of another form".to_owned());
        let mut text = text.as_slice();
        if kind == Frame::End {
            let groups = Value::decode(&mut text).and_then(|value| value.int());
            let is_last = Value::decode(&mut text).and_then(|value| value.int());
            if groups != Some(self.groups as i64) || self.fill(1).await? {
                return Err(odd());
            }
            self.is_last = Some(is_last.ok_or_else(odd)? == 1);
            return Ok(None);
        }
        let mut groups = Vec::new();
        while !text.is_empty() {
            groups.push(self.group(&mut text).ok_or_else(odd)?);
        }
        self.groups += groups.len() as u64;
        Ok(Some(groups))
    }

    /// Whether the object, read to its end, is the manifest's last.
    pub(super) fn is_last(&self) -> bool {
        self.is_last == Some(true)
    }

    fn group(&self, text: &mut &[u8]) -> Option<(&'static Table, Group)> {
        let (id, rest) = text.split_first()?;
        let columns = self.tables.get(id)?;
        let (count, rest) = rest.split_first_chunk()?;
        *text = rest;
        let table = columns.table;
        let key: Option<Vec<Value>> = (0..table.group).map(|_| Value::decode(text)).collect();
        let mut group = Group {
            key: key?,
            rows: Vec::new(),
        };
        for _ in 0..u32::from_be_bytes(*count) {
            let row: Option<Vec<Value>> = (0..columns.width).map(|_| Value::decode(text)).collect();
            let row = row?;
            let value = |place: &Option<usize>| match place {
                Some(place) => row.get(*place).cloned().unwrap_or(Value::Null),
                None => Value::Null,
            };
            group.rows.push(columns.places.iter().map(value).collect());
        }
        table.takes(&group).then_some((table, group))
    }

    async fn frame(&mut self, kinds: &[Frame]) -> Result<(Frame, Vec<u8>), Unreadable> {
        let broken = |why: &str| Unreadable::Broken(why.to_owned());
        if !self.fill(4).await? {
            return Err(broken("it ends early"));
        }
        let length = self.buffer.get_u32() as usize;
        if length > FRAME_MAX {
            return Err(broken("it is damaged"));
        }
        if !self.fill(length).await? {
            return Err(broken("it ends early"));
        }
        let sealed = self.buffer.split_to(length);
        for kind in kinds {
            let payload = Payload {
                msg: &sealed,
                aad: &[*kind as u8],
            };
            if let Ok(text) = self.cipher.decrypt(&nonce(self.index), payload) {
                self.index += 1;
                return Ok((*kind, text));
            }
        }
        Err(broken("it is damaged"))
    }

    /// Reads until so many bytes are there; `false` at the end.
    async fn fill(&mut self, length: usize) -> Result<bool, Unreadable> {
        while self.buffer.len() < length {
            match self.reader.next().await {
                Some(bytes) => self.buffer.extend_from_slice(&bytes?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
