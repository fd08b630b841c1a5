// Opening liblmdb on a private file. Called by the writer and by the builder of the index.
#include "publish/owned.hpp"

#include <sys/statvfs.h>

#include <cerrno>

namespace apikey::publish {
namespace {

// liblmdb says EIO when less was written than it wanted; that is a full disk where nothing is left of it.
int named(int result, const char* path) {
  struct statvfs disk {};
  return result == EIO && path != nullptr && statvfs(path, &disk) == 0 && disk.f_bavail == 0 ? ENOSPC : result;
}

}  // namespace

Status open_private_env(const char* path, std::size_t map_size, OwnedEnv& env) {
  constexpr unsigned flags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC;
  constexpr MDB_dbi databases = 8;
  MDB_env* raw = nullptr;
  int result = mdb_env_create(&raw);
  if (result != 0) return lmdb_failure("liblmdb cannot start{error}", result);
  env.reset(raw);
  result = mdb_env_set_maxdbs(raw, databases);
  if (result == 0) result = mdb_env_set_mapsize(raw, map_size);
  if (result == 0) result = mdb_env_open(raw, path, flags, 0640);
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot open the new snapshot{error}", named(result, path));
}

Status begin_write(MDB_env* env, OwnedTxn& txn) {
  MDB_txn* raw = nullptr;
  const int result = mdb_txn_begin(env, nullptr, 0, &raw);
  txn.reset(raw);
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot begin to write{error}", result);
}

Status commit(OwnedTxn& txn) {
  const char* path = nullptr;
  static_cast<void>(mdb_env_get_path(mdb_txn_env(txn.get()), &path));
  const int result = mdb_txn_commit(txn.release());  // frees it, whatever the result
  return result == 0 ? Status{} : lmdb_failure("liblmdb cannot write the new snapshot{error}", named(result, path));
}

}  // namespace apikey::publish
