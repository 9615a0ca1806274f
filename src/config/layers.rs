//! Where settings come from beside the defaults: a file, the environment, the command line.

use std::collections::BTreeMap;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Backend, Config, ConfigError, Overrides, PREFIX, Placement, expected};
use crate::tasks;

/// One source of settings.
pub(super) struct Layer {
    pub(super) source: String,
    pub(super) sections: Map<Profile, Dict>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(self.sections.clone())
    }
}

impl Layer {
    fn new(source: &str, settings: Dict) -> Self {
        Self {
            source: source.to_owned(),
            sections: Map::from([(Profile::Default, settings)]),
        }
    }

    /// Variables `OSPROXY_SECTION__NAME`, each read as what the setting's default is.
    pub(super) fn of_environment(
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Dict::new();
        for (variable, text) in environment {
            let path = path_of(variable);
            let Some(default) = default_at(&path) else {
                return Err(ConfigError(format!("{variable}: there is no such setting")));
            };
            let value = read_as(&default, variable, text)?;
            insert(&mut settings, &path, value);
        }
        Ok(Self::new("the environment", settings))
    }

    pub(super) fn of_overrides(overrides: &Overrides) -> Self {
        let mut settings = Dict::new();
        let mut set = |section: &[&str], text: Option<String>| {
            if let Some(text) = text {
                let path: Vec<String> = section.iter().map(|name| (*name).to_owned()).collect();
                insert(&mut settings, &path, Value::from(text));
            }
        };
        set(
            &["data_dir"],
            overrides
                .data_dir
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
        );
        set(
            &["s3", "listen"],
            overrides.s3_listen.map(|address| address.to_string()),
        );
        set(
            &["native", "listen"],
            overrides.native_listen.map(|address| address.to_string()),
        );
        set(
            &["admin", "listen"],
            overrides.admin_listen.map(|address| address.to_string()),
        );
        if overrides.native_listen.is_some() {
            let path = ["native".to_owned(), "enabled".to_owned()];
            insert(&mut settings, &path, Value::from(true));
        }
        Self::new("the command line", settings)
    }
}

/// The sections and the name that a variable names.
fn path_of(variable: &str) -> Vec<String> {
    let names = variable.strip_prefix(PREFIX).unwrap_or(variable);
    names.split("__").map(str::to_ascii_lowercase).collect()
}

/// Refuses a variable that means a backend, placement or target of the file whose name has a hyphen: with an underscore
/// it is another one, of which the file says nothing.
pub(super) fn check_hyphens(
    environment: &BTreeMap<String, String>,
    file: &Figment,
) -> Result<(), ConfigError> {
    for variable in environment.keys() {
        let path = path_of(variable);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (section, name) = match path[..] {
            [section @ ("backend" | "placement"), name, _, ..] => (section, name),
            ["notification", "target", name, _, ..] => ("notification.target", name),
            _ => continue,
        };
        let Ok(Value::Dict(_, known)) = file.find_value(section) else {
            continue;
        };
        let is_meant = |known: &&String| known.contains('-') && known.replace('-', "_") == name;
        if let Some(meant) = known.keys().find(is_meant)
            && !known.contains_key(name)
        {
            return Err(ConfigError(format!(
                "{variable}: there is no {section}.{name}, and a variable cannot name {section}.{meant}, because shells \
                 take no hyphen in it; set this in the file, or name it {name} there"
            )));
        }
    }
    Ok(())
}

/// Reads the value of a variable as what `default` is: text as it stands, so that a secret of digits stays a text;
/// whole numbers; `true` or `false`; lists separated by commas. A setting without a default is a text.
pub(super) fn read_as(default: &Value, variable: &str, text: &str) -> Result<Value, ConfigError> {
    match default {
        Value::Num(..) => match text.trim().parse::<u64>() {
            Ok(number) => Ok(Value::from(number)),
            Err(_) => Err(expected(variable, "a whole number", text)),
        },
        Value::Bool(..) => match text.trim() {
            "true" => Ok(Value::from(true)),
            "false" => Ok(Value::from(false)),
            _ => Err(expected(variable, "true or false", text)),
        },
        Value::Array(..) => {
            let items = text.split(',').map(str::trim);
            let items: Vec<&str> = items.filter(|item| !item.is_empty()).collect();
            Ok(items.into())
        }
        Value::String(..) | Value::Char(..) | Value::Empty(..) => Ok(Value::from(text)),
        Value::Dict(..) => {
            let problem = format!("{variable}: names a section, expected one of its keys");
            Err(ConfigError(problem))
        }
    }
}

/// The default of one setting, which also says what it is. Any option of any backend is a text.
fn default_at(path: &[String]) -> Option<Value> {
    let (mut value, rest) = match path {
        [section, _, options, _] if section == "backend" && options == "options" => {
            return Some(Value::from(""));
        }
        [section, _, rest @ ..] if section == "backend" => {
            (Value::serialize(Backend::local()).ok()?, rest)
        }
        [section, _, rest @ ..] if section == "placement" => {
            (Value::serialize(Placement::example()).ok()?, rest)
        }
        [section, list, _, rest @ ..] if section == "notification" && list == "target" => (
            Value::serialize(tasks::events::Target::example()).ok()?,
            rest,
        ),
        _ => (Value::serialize(Config::default()).ok()?, path),
    };
    for name in rest {
        value = value.into_dict()?.remove(name)?;
    }
    Some(value)
}

fn insert(settings: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            settings.insert(name.clone(), value);
        }
        [section, rest @ ..] => {
            let inner = settings
                .entry(section.clone())
                .or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
