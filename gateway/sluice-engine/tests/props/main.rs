//! Properties of the mechanisms, on generated inputs and invented time.
//!
//! Examples and edge cases stand beside each mechanism; here are the sentences that have to be true
//! of all inputs. The one rule: a model in these files is written from the documentation and shares
//! no code with what it checks.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod breaker;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod canon;
#[cfg(test)]
mod ejection;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod mask;
#[cfg(test)]
mod matcher;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod request_head;
#[cfg(test)]
mod signature;
#[cfg(test)]
mod text;
#[cfg(test)]
mod timeout;
#[cfg(test)]
mod window;
