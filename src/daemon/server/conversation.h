/*
 * What is said on one connection: requests and their replies, one after the other.
 *
 *   HEAD      between requests, or a head is coming        -> EXCHANGE, ENDED
 *   EXCHANGE  a request is being handled, its reply sent   -> HEAD, SKIP, LINGER, ENDED
 *   SKIP      the rest of a body that nobody read          -> HEAD, ENDED
 *   LINGER    we have closed our side, after a refusal: what still comes is thrown away, so that
 *             the client gets to read the reply            -> ENDED
 *   ENDED     waits for the connection to be closed, then the memory goes
 *
 * A client that is gone loses its descriptor at once, but the conversation stays in EXCHANGE until
 * the handler has finished.
 */
#pragma once

struct service;

/* Begins the conversation on an accepted socket, which it owns. It belongs to itself: it is in the
 * service's list until it has ended. Where memory is short the socket is closed. */
void conversation_begin(struct service *s, int fd);

/* The same for a client that was turned away, and gets to read that. */
void conversation_begin_farewell(struct service *s, int fd);

/* Ends all conversations that have no request under way. */
void conversation_end_idle(struct service *s);

/* Cuts all clients off, whatever is under way; handlers may still have to finish. */
void conversation_cut_all(struct service *s);
