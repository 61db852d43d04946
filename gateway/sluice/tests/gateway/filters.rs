//! What each filter does to real requests and answers, alone and beside the others.

mod algorithms;
mod carriers;
mod concurrency;
mod cors;
mod forgeries;
mod jwks;
mod jwt;
mod key_files;
mod lists;
mod message_push;
mod odd_bytes;
mod rate_limit;
mod refuse;
mod request_id;
mod shape;
mod tiers;
