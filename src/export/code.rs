//! Rows as compact bytes, on their way through the spool: written once, read once, by the same run of the program.
//!
//! Nothing here is a format: no two versions of the program ever read each other's.

use std::borrow::Cow;

use crate::model::{
    Account, Change, Counts, Dm, Engagement, EventKind, Extra, Follow, Link, Media, Mention, Nested, Platform, Post, PostKind,
    ProfileChange, Provider, Token, UnixMicros, Via,
};

/// Can be written into the spool, and read back borrowing from it.
pub(super) trait Code<'a>: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// `None` when the bytes are not what [`put`](Self::put) wrote.
    fn get(from: &mut &'a [u8]) -> Option<Self>;
}

impl<'a> Code<'a> for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = u8::get(from)?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

impl<'a> Code<'a> for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        Some(byte)
    }
}

impl<'a> Code<'a> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        Some(u8::get(from)? != 0)
    }
}

impl<'a> Code<'a> for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk::<8>()?;
        *from = rest;
        Some(Self::from_le_bytes(*bytes))
    }
}

impl<'a> Code<'a> for UnixMicros {
    fn put(&self, out: &mut Vec<u8>) {
        // Zigzag: instants before 1970 stay short too.
        (((self.0 << 1) ^ (self.0 >> 63)) as u64).put(out);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let folded = u64::get(from)?;
        Some(Self((folded >> 1) as i64 ^ -((folded & 1) as i64)))
    }
}

impl<'a> Code<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u64::get(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(bytes)
    }
}

impl<'a> Code<'a> for Cow<'a, str> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        simdutf8::basic::from_utf8(<&[u8]>::get(from)?).ok().map(Cow::Borrowed)
    }
}

impl<'a> Code<'a> for Extra {
    fn put(&self, out: &mut Vec<u8>) {
        Cow::Borrowed(self.0.as_str()).put(out);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        Cow::get(from).map(|text| Self(text.into_owned()))
    }
}

impl<'a, T: Code<'a>> Code<'a> for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        if u8::get(from)? == 0 { Some(None) } else { T::get(from).map(Some) }
    }
}

impl<'a, T: Code<'a>> Code<'a> for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        T::get(from).map(Box::new)
    }
}

impl<'a, T: Code<'a>> Code<'a> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut &'a [u8]) -> Option<Self> {
        let length = u64::get(from)?;
        (0..length).map(|_| T::get(from)).collect()
    }
}

macro_rules! words {
    ($($name:ty: $all:expr;)+) => {$(
        impl<'a> Code<'a> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn get(from: &mut &'a [u8]) -> Option<Self> {
                $all.get(usize::from(u8::get(from)?)).copied()
            }
        }
    )+};
}

words! {
    Platform: [Self::X, Self::TruthSocial];
    PostKind: [Self::Post, Self::Reply, Self::Quote, Self::Repost];
    EventKind: Self::ALL;
    Via: Self::ALL;
    Provider: Self::ALL;
}

macro_rules! fields {
    ($($name:ident $(<$life:lifetime>)? { $($field:ident),+ $(,)? })+) => {$(
        impl<'a> Code<'a> for $name $(<$life>)? {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)+
            }

            fn get(from: &mut &'a [u8]) -> Option<Self> {
                Some(Self { $($field: Code::get(from)?),+ })
            }
        }
    )+};
}
pub(super) use fields;

fields! {
    Post<'a> {
        platform, detected_at, kind, text, lang, url, client, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
        in_reply_to_handle, quoted, reposted, is_sensitive, author, counts, hashtags, symbols, mentions, urls, media, tokens,
        ocr_text, extra,
    }
    Nested<'a> { tweet_id, author_id, author_handle, text }
    Counts { likes, reposts, replies, quotes, bookmarks, views }
    Account<'a> {
        id, handle, name, bio, location, picture_url, created_at, followers, following, posts, is_blue_verified, verified_type,
    }
    Mention<'a> { id, handle, name }
    Link<'a> { url, expanded_url, display_url }
    Media<'a> { kind, url, preview_url, alt_text, duration_ms }
    Token<'a> { kind, symbol, name, contract, chain, price_usd, found_in }
    ProfileChange<'a> { platform, observed_at, account, changes, extra }
    Change<'a> { field, before, after }
    Follow<'a> { platform, observed_at, actor, target, extra }
    Engagement<'a> { counts, view_state, extra }
    Dm<'a> { conversation_id, user_id, message_id, text, extra }
}

/// Reads a post's row, and writes it again: for fuzzing, which has no other way here.
pub fn again(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Post::get(&mut bytes)?.put(&mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn back<'a, T: Code<'a> + PartialEq + std::fmt::Debug>(value: &T, bytes: &'a mut Vec<u8>) {
        value.put(bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(T::get(&mut rest).as_ref(), Some(value));
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            T::get(&mut &bytes[..cut]);
        }
    }

    #[test]
    fn rows_come_back() {
        for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            back(&number, &mut Vec::new());
        }
        for micros in [0, 1, -1, i64::MIN, i64::MAX] {
            back(&UnixMicros(micros), &mut Vec::new());
        }
        let text = |text: &'static str| Some(Cow::Borrowed(text));
        let post = Post {
            platform: Some(Platform::TruthSocial),
            kind: Some(PostKind::Repost),
            text: text("Grüße\n\0"),
            quoted: Some(Box::new(Nested { tweet_id: Some(u64::MAX), ..Nested::default() })),
            author: Account { created_at: Some(UnixMicros(-5)), followers: Some(0), ..Account::default() },
            counts: Counts { likes: Some(3), ..Counts::default() },
            hashtags: vec!["a".into(), "".into()],
            tokens: vec![Token {
                kind: "cex".into(),
                price_usd: Some(f64::MIN_POSITIVE),
                found_in: vec!["ocr".into()],
                ..Token::default()
            }],
            extra: Extra("{\"a\":1}".to_owned()),
            ..Post::default()
        };
        back(&post, &mut Vec::new());
        back(&Post::default(), &mut Vec::new());
        for kind in EventKind::ALL {
            back(&kind, &mut Vec::new());
        }
        for via in Via::ALL {
            back(&via, &mut Vec::new());
        }
    }
}
