//! `\set NAME` and `:{NAME}`: the first cell of a result, put into later statements.

use std::collections::BTreeMap;

/// The variables of a shell.
#[derive(Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
}

impl Variables {
    /// Keeps a value under a name.
    ///
    /// # Errors
    /// A name with other characters than letters, digits and underscores.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!("'{name}' is no name of a variable: letters, digits, underscores"));
        }
        self.values.insert(name.into(), value);
        Ok(())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The text with every `:{NAME}` replaced, in quotes too. What only looks like one is left.
    ///
    /// # Errors
    /// A variable that has not been set.
    pub fn substitute(&self, text: &str) -> Result<String, String> {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(":{") {
            let behind = &rest[at + 2..];
            match behind.find('}').map(|end| (&behind[..end], &behind[end + 1..])) {
                Some((name, after)) if is_name(name) => {
                    let value = self.values.get(name).ok_or_else(|| {
                        format!("the variable {name} is not set: \\set {name} after a statement")
                    })?;
                    result.push_str(&rest[..at]);
                    result.push_str(value);
                    rest = after;
                }
                _ => {
                    result.push_str(&rest[..at + 2]);
                    rest = behind;
                }
            }
        }
        result.push_str(rest);
        Ok(result)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutes_what_is_set() {
        let mut variables = Variables::default();
        variables.set("at", "2013".into()).unwrap();
        assert_eq!(variables.substitute("a ':{at}' :{at}"), Ok("a '2013' 2013".into()));
        assert_eq!(variables.substitute("'a:{' || ':{}' :{no"), Ok("'a:{' || ':{}' :{no".into()));
        assert!(variables.substitute(":{other}").unwrap_err().contains("other"));
        assert!(variables.set("a b", String::new()).is_err());
    }
}
