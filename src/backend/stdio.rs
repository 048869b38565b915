//! A child process for each session.
