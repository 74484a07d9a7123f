//! Calls whose requests and replies are values of a type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use crate::call::{
    CallError, CallOptions, Client, ClientBuilder, Pending, Replies, Reply, ReplyError, ReplyStream, Request,
    ServeError, Server, ServerBuilder,
};
use crate::receive::RecvError;
use crate::typed::{DecodeError, EncodeError, Typed};

/// Why a call of a type has failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedCallError {
    /// The request cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The call has failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why an answer of a type was not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedReplyError {
    /// It cannot be encoded. The client has got [`CallError::Failed`].
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It was not sent.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

/// Calls a service whose requests are of type `Q` and whose replies are of type `A`: [`crate::Node::client_of`].
///
/// A server of other types is not called, and if there is no other, a call fails with [`CallError::Mismatch`]. All else is as with a
/// [`Client`].
pub struct TypedClient<Q: Typed, A: Typed> {
    client: Client,
    of: PhantomData<fn(Q) -> A>,
}

/// A call that is under way: [`TypedClient::start`]. Dropping it cancels the call.
pub struct TypedPending<A: Typed> {
    pending: Pending,
    of: PhantomData<fn() -> A>,
}

/// A reply of a type, or a part of one.
pub struct TypedReply<A: Typed> {
    reply: Reply,
    of: PhantomData<fn() -> A>,
}

/// A reply in parts: [`TypedClient::call_stream`]. Dropping it cancels the call.
pub struct TypedReplies<A: Typed> {
    replies: Replies,
    of: PhantomData<fn() -> A>,
}

/// Serves a service whose requests are of type `Q` and whose replies are of type `A`: [`crate::Node::serve_of`].
///
/// A client of other types, or of none, does not reach it. All else is as with a [`Server`].
pub struct TypedServer<Q: Typed, A: Typed> {
    server: Server,
    of: PhantomData<fn(A) -> Q>,
}

/// A request of a type: [`TypedServer::recv`].
pub struct TypedRequest<Q: Typed, A: Typed> {
    request: Request,
    of: PhantomData<fn(A) -> Q>,
}

/// A reply in parts: [`TypedRequest::stream`].
pub struct TypedReplyStream<A: Typed> {
    stream: ReplyStream,
    buffer: Vec<u8>,
    of: PhantomData<fn(A)>,
}

impl<Q: Typed, A: Typed> TypedClient<Q, A> {
    /// Calls the service, and waits for the reply. As [`Client::call`].
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    pub fn call(&self, request: &Q::Value, options: impl Into<CallOptions>) -> Result<TypedReply<A>, TypedCallError> {
        let reply = self.client.call(Q::encode(request, &mut Vec::new())?, options)?;
        Ok(TypedReply::new(reply))
    }

    /// Sends a request. As [`Client::start`].
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    pub fn start(
        &self,
        request: &Q::Value,
        options: impl Into<CallOptions>,
    ) -> Result<TypedPending<A>, TypedCallError> {
        let pending = self.client.start(Q::encode(request, &mut Vec::new())?, options)?;
        Ok(TypedPending { pending, of: PhantomData })
    }

    /// Calls the service, whose reply comes in parts. As [`Client::call_stream`].
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    pub fn call_stream(
        &self,
        request: &Q::Value,
        options: impl Into<CallOptions>,
    ) -> Result<TypedReplies<A>, TypedCallError> {
        let replies = self.client.call_stream(Q::encode(request, &mut Vec::new())?, options)?;
        Ok(TypedReplies { replies, of: PhantomData })
    }

    /// Calls the service, in a task. As [`Client::call_async`].
    ///
    /// # Errors
    ///
    /// [`TypedCallError`].
    pub async fn call_async(
        &self,
        request: &Q::Value,
        options: impl Into<CallOptions>,
    ) -> Result<TypedReply<A>, TypedCallError> {
        let mut buffer = Vec::new();
        let reply = self.client.call_async(Q::encode(request, &mut buffer)?, options).await?;
        Ok(TypedReply::new(reply))
    }
}

impl<A: Typed> TypedPending<A> {
    /// Waits for the reply. As [`Pending::wait`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(self) -> Result<TypedReply<A>, CallError> {
        self.pending.wait().map(TypedReply::new)
    }

    /// The call without its type, for all else that can be done with it.
    pub fn into_inner(self) -> Pending {
        self.pending
    }
}

impl<A: Typed> TypedReply<A> {
    fn new(reply: Reply) -> Self {
        Self { reply, of: PhantomData }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: its server has sent something else.
    pub fn value(&self) -> Result<A::Read<'_>, DecodeError> {
        A::decode(&self.reply)
    }
}

impl<A: Typed> TypedReplies<A> {
    /// The call without its type, for all else that can be done with it.
    pub fn into_inner(self) -> Replies {
        self.replies
    }
}

impl<A: Typed> Iterator for TypedReplies<A> {
    type Item = Result<TypedReply<A>, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.replies.next()?.map(TypedReply::new))
    }
}

impl<Q: Typed, A: Typed> TypedServer<Q, A> {
    /// Waits for the next request. As [`Server::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv(&self) -> Result<Option<TypedRequest<Q, A>>, RecvError> {
        Ok(self.server.recv()?.map(TypedRequest::new))
    }

    /// The next request, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn try_recv(&self) -> Result<Option<TypedRequest<Q, A>>, RecvError> {
        Ok(self.server.try_recv()?.map(TypedRequest::new))
    }

    /// Waits for the next request, at most this long. As [`Server::recv_timeout`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<TypedRequest<Q, A>>, RecvError> {
        Ok(self.server.recv_timeout(timeout)?.map(TypedRequest::new))
    }

    /// Waits for the next request, in a task. As [`Server::recv_async`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_async(&self) -> Result<Option<TypedRequest<Q, A>>, RecvError> {
        Ok(self.server.recv_async().await?.map(TypedRequest::new))
    }
}

impl<Q: Typed, A: Typed> TypedRequest<Q, A> {
    fn new(request: Request) -> Self {
        Self { request, of: PhantomData }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: its client has sent something else.
    pub fn value(&self) -> Result<Q::Read<'_>, DecodeError> {
        Q::decode(&self.request)
    }

    /// Answers it. As [`Request::reply`].
    ///
    /// # Errors
    ///
    /// [`TypedReplyError`].
    pub fn reply(self, reply: &A::Value) -> Result<(), TypedReplyError> {
        let mut buffer = Vec::new();
        match A::encode(reply, &mut buffer) {
            Ok(bytes) => Ok(self.request.reply(bytes)?),
            Err(error) => {
                self.request.fail(0, &error.to_string())?;
                Err(error.into())
            }
        }
    }

    /// Answers it in parts. As [`Request::stream`].
    pub fn stream(self) -> TypedReplyStream<A> {
        TypedReplyStream { stream: self.request.stream(), buffer: Vec::new(), of: PhantomData }
    }

    /// The request without its type, for all else that can be done with it: to let it fail, for example.
    pub fn into_inner(self) -> Request {
        self.request
    }
}

impl<A: Typed> TypedReplyStream<A> {
    /// Sends a part, and waits until the client has taken some, if 16 are ahead. As [`ReplyStream::send`].
    ///
    /// # Errors
    ///
    /// [`TypedReplyError`].
    pub fn send(&mut self, part: &A::Value) -> Result<(), TypedReplyError> {
        self.buffer.clear();
        Ok(self.stream.send(A::encode(part, &mut self.buffer)?)?)
    }

    /// Ends the reply. As [`ReplyStream::finish`].
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub fn finish(self) -> Result<(), ReplyError> {
        self.stream.finish()
    }

    /// The stream without its type, for all else that can be done with it.
    pub fn into_inner(self) -> ReplyStream {
        self.stream
    }
}

macro_rules! deref {
    ($([$($parameter:ident)*] $outer:ident, $field:ident: $inner:ident;)*) => { $(
        impl<$($parameter: Typed),*> Deref for $outer<$($parameter),*> {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.$field
            }
        }

        impl<$($parameter: Typed),*> fmt::Debug for $outer<$($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($outer)).field(&self.$field).finish()
            }
        }
    )* };
}

deref! {
    [Q A] TypedClient, client: Client;
    [Q A] TypedServer, server: Server;
    [Q A] TypedRequest, request: Request;
    [A] TypedReply, reply: Reply;
    [A] TypedPending, pending: Pending;
    [A] TypedReplies, replies: Replies;
    [A] TypedReplyStream, stream: ReplyStream;
}

impl<Q: Typed, A: Typed> Clone for TypedClient<Q, A> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), of: PhantomData }
    }
}

impl ClientBuilder<'_> {
    /// Opens a client whose requests are of type `Q` and whose replies are of type `A`. As [`ClientBuilder::open`].
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn open_of<Q: Typed, A: Typed>(self) -> Result<TypedClient<Q, A>, ServeError> {
        let client = self.schemas(Q::schema()?, A::schema()?).open()?;
        Ok(TypedClient { client, of: PhantomData })
    }
}

impl ServerBuilder<'_> {
    /// Opens a server whose requests are of type `Q` and whose replies are of type `A`. As [`ServerBuilder::open`].
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn open_of<Q: Typed, A: Typed>(self) -> Result<TypedServer<Q, A>, ServeError> {
        let server = self.schemas(Q::schema()?, A::schema()?).open()?;
        Ok(TypedServer { server, of: PhantomData })
    }
}
