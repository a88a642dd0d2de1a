//! # Placement
