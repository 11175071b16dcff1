//! Optimisation: schedules, clipping, AdamW state.
