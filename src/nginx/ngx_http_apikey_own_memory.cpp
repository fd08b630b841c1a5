// Which memory is a request's own: the buffers its head was read into, and its pool.
// Called when a key is hidden. What cannot be shown to be the request's counts as somebody else's.
#include "ngx_http_apikey_own_memory.hpp"

#include <malloc.h>

#include <algorithm>
#include <functional>

namespace apikey::nginx {
namespace {

// Between pointers into different objects only std::less is defined.
bool is_within(std::string_view text, const void* begin, const void* end) noexcept {
  constexpr std::less_equal<const void*> is_not_behind;
  return begin != nullptr && is_not_behind(begin, text.data()) && is_not_behind(text.data() + text.size(), end);
}

bool is_in_buffer(std::string_view text, const ngx_buf_t* buffer) noexcept {
  return buffer != nullptr && is_within(text, buffer->start, buffer->end);
}

bool is_in_chain(std::string_view text, const ngx_chain_t* chain) noexcept {
  for (; chain != nullptr; chain = chain->next) {
    if (is_in_buffer(text, chain->buf)) {
      return true;
    }
  }
  return false;
}

bool is_in_pool(std::string_view text, const ngx_pool_t& pool) noexcept {
  for (const ngx_pool_t* block = &pool; block != nullptr; block = block->d.next) {
    if (is_within(text, block, block->d.end)) {
      return true;
    }
  }
  for (const ngx_pool_large_t* large = pool.large; large != nullptr; large = large->next) {
    if (large->alloc != nullptr &&
        is_within(text, large->alloc, static_cast<char*>(large->alloc) + malloc_usable_size(large->alloc))) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool is_own_memory(ngx_http_request_t* r, std::string_view text) noexcept {
  if (is_in_buffer(text, r->header_in) || is_in_pool(text, *r->pool)) {
    return true;
  }
#if (NGX_HTTP_V2)
  // HTTP/2 keeps the head of a request in a pool of its stream.
  if (r->stream != nullptr && r->stream->pool != nullptr && is_in_pool(text, *r->stream->pool)) {
    return true;
  }
#endif
  // The line of HTTP/1 may be in the connection's first buffer and its headers in others. HTTP/2 and later have no such
  // buffers; what is left there may be freed.
  if (r->http_version >= NGX_HTTP_VERSION_20) {
    return false;
  }
  const ngx_http_connection_t& connection = *r->http_connection;
  const ngx_buf_t* first = r->connection->buffer;
  return (first != nullptr && first->pos != nullptr && is_in_buffer(text, first)) ||
         is_in_chain(text, connection.busy) || is_in_chain(text, connection.free);
}

void overwrite(ngx_http_request_t* r, std::string_view text, Pseudonym pseudonym) noexcept {
  if (text.empty() || !is_own_memory(r, text)) {
    return;
  }
  const PseudonymText name = pseudonym_text(pseudonym);
  auto* at = const_cast<char*>(text.data());
  // The digits are what differs, and they stand at the end.
  const std::size_t length = std::min(text.size(), name.size());
  at = std::copy_n(name.end() - static_cast<std::ptrdiff_t>(length), length, at);
  std::fill_n(at, text.size() - length, '*');
}

}  // namespace apikey::nginx
