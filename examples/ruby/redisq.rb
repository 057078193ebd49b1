# frozen_string_literal: true

require 'digest'
require 'redis'

# The scripts of redisq, from Ruby. This file is the whole loader; the queues beside it stand on it.
module Redisq
  # In every error that a script answers with; nothing has been written when one comes.
  module Error; end

  class InvalidArgument < ArgumentError; include Error; end
  class LeaseLost < StandardError; include Error; end
  class WrongOrder < StandardError; include Error; end
  class WrongLayout < StandardError; include Error; end

  REFUSALS = {
    'BADARG' => InvalidArgument, 'LEASELOST' => LeaseLost, 'WRONGORDER' => WrongOrder, 'LAYOUT' => WrongLayout
  }.freeze

  # A vendored copy beside this file, or the checkout's own.
  FOLDER = [File.join(__dir__, 'lua'), File.expand_path('../../lua', __dir__)].find { |path| File.directory?(path) }

  # A folder of scripts and a client. Strings go in as the bytes that they are, whatever their encoding, beside symbols
  # and numbers, nil is empty; strings come out as bytes.
  class Scripts
    def initialize(redis, folder = FOLDER)
      @redis = redis
      @scripts = Dir.glob('*/*.lua', base: folder).to_h do |path|
        text = File.binread(File.join(folder, path))
        [path.delete_suffix('.lua'), [text, Digest::SHA1.hexdigest(text)]]
      end
    end

    # When a reply is lost, redis-rb sends the command again by itself, the very same bytes. So what makes a call known
    # to the script, its once-id or lease's id, stands in `keys` and `arguments` before this method is called.
    def call(name, keys, arguments)
      text, sha = @scripts.fetch(name)
      keys, arguments = [keys, arguments].map { |list| list.map(&:to_s) }
      binary(evalsha(sha, text, keys, arguments))
    rescue Redis::CommandError => e
      code, reason = e.message.b.split(' ', 2)
      raise REFUSALS.key?(code) ? REFUSALS[code].new("#{name}: #{reason.force_encoding(Encoding::UTF_8).scrub}") : e
    end

    # For an EVAL in a MULTI or a pipeline of your own, where an EVALSHA that is not known cannot be tried again.
    def text(name)
      @scripts.fetch(name).first
    end

    private

    # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
    def evalsha(sha, text, keys, arguments)
      @redis.evalsha(sha, keys, arguments)
    rescue Redis::CommandError => e
      e.message.start_with?('NOSCRIPT') ? @redis.eval(text, keys, arguments) : raise
    end

    def binary(reply)
      case reply
      when Array then reply.map { |part| binary(part) }
      when String then reply.b
      else reply
      end
    end
  end
end
