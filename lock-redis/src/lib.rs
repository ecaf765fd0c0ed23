//! The Redis backend of fencelock: locks on one Redis server, 6.2 or newer.
//!
//! Each operation is one Lua script that decides on the server, with the server's clock, what
//! [`LockState`](lockcore::state::LockState) decides in memory. `docs/backends/redis.md` describes the keys, the scripts
//! and what each lost message costs.
//!
//! # Examples
//! ```no_run
//! # async fn example() -> Result<(), lockcore::Error> {
//! let backend = lock_redis::RedisBackend::connect("redis://:secret@127.0.0.1:6379").await?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```

mod backend;
mod checks;
mod connect;
#[cfg(test)]
mod equivalence;
mod errors;
mod grants;
mod keeper;
mod keys;
mod link;
mod news;
mod replicas;
mod reply;
mod request;
mod restart;
mod scripts;

pub use self::backend::RedisBackend;
pub use self::connect::RedisBuilder;
