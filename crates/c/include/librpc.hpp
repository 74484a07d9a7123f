/*
 * librpc for C++17: handles that free themselves, exceptions, ranges. Everything here is inline, over librpc.h.
 *
 * Errors are exceptions: librpc::Error. With LIBRPC_RESULTS defined (or without exceptions) each function that can fail returns a
 * librpc::Result<T> instead. Ownership, threads, time and fork() are as librpc.h says. Time limits are std::chrono durations;
 * librpc::forever has no limit, and zero does not wait.
 */
#ifndef LIBRPC_HPP
#define LIBRPC_HPP

#include "librpc/core.hpp"     // errors, results, bytes, types
#include "librpc/receive.hpp"  // inboxes, messages, samples, events, callbacks
#include "librpc/send.hpp"     // senders, publishers, outboxes, loans
#include "librpc/call.hpp"     // clients and servers
#include "librpc/node.hpp"     // nodes, which open all of these; the domain; the log
#include "librpc/typed.hpp"    // messages of a type

#endif
