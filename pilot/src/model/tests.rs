//! Model rows, from YAML.
