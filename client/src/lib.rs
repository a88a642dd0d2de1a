//! Chapter to come.
